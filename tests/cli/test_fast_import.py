"""Tests of imports without garbage collection."""

from __future__ import annotations

import gc

import pytest

from styled.cli.fast_import import importing


def test_what_is_imported_is_left_alone_and_garbage_is_collected_afterwards() -> None:
    """The collector is off during the import, and objects created then are frozen."""
    made: list[list[object]] = []
    try:
        with importing():
            assert not gc.isenabled()
            made.append([object()])
        assert gc.isenabled()
        assert not any(found is made for found in gc.get_objects())
    finally:
        gc.unfreeze()
    assert any(found is made for found in gc.get_objects())


def test_an_import_that_fails_leaves_the_collector_on() -> None:
    """The error is propagated, and the collector is on again."""
    with pytest.raises(ImportError), importing():
        raise ImportError("no such library")
    assert gc.isenabled()
