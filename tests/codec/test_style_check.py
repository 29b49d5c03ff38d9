"""Checking style images: missing or damaged ones are found, logged, and their recovery too."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from styled.codec import style_check
from styled.codec.style_check import StyleCheck, check_style
from styled.config import Style
from tests.job_harness import JobHarness, LogLines, picture


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Style]:
    """Return the list of styles whose images have been decoded."""
    styles: list[Style] = []

    def record(style: Style, *, max_pixels: int) -> Sequence[str]:
        styles.append(style)
        return check_style(style, max_pixels=max_pixels)

    monkeypatch.setattr(style_check, "check_style", record)
    return styles


def test_a_broken_picture_is_decoded_again_only_once_it_has_changed(
    harness: JobHarness, logs: LogLines, decoded: list[Style]
) -> None:
    """A damaged image is logged once and is decoded again only when the file has changed."""
    oil = harness.base / "styles/oil.png"
    good = oil.read_bytes()
    oil.write_bytes(b"no picture")
    check = StyleCheck(10**8)
    assert check.check(harness.styles)
    (problem,) = check.problems.values()
    assert "oil.png" in problem
    assert len(decoded) == 2
    assert not check.check(harness.styles)
    assert check.problems == {"oil": problem}
    assert len(decoded) == 2
    oil.write_bytes(good)
    assert check.check(harness.styles)
    assert check.problems == {}
    assert len(decoded) == 3
    assert [line["event"] for line in logs] == ["style.unavailable", "style.recovered"]


def test_a_picture_that_goes_is_missed_without_decoding(
    harness: JobHarness, logs: LogLines, decoded: list[Style]
) -> None:
    """A missing image is noticed without decoding; each change is logged once."""
    check = StyleCheck(10**8)
    assert not check.check(harness.styles)
    oil = harness.base / "styles/oil.png"
    oil.unlink()
    assert check.check(harness.styles)
    assert list(check.problems) == ["oil"]
    assert len(decoded) == 2
    oil.write_bytes(picture("crimson", (48, 40)))
    assert check.check(harness.styles)
    assert not check.check({"ink": harness.styles["ink"]})
    assert [line["event"] for line in logs] == ["style.unavailable", "style.recovered"]
