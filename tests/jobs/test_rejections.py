"""A rejected photo tells why in one sentence, and what can be done about it."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

import styled
from styled.cli.main import app
from styled.errors import ConfigError, EngineFailure, InputRejected
from tests.jobs.conftest import Died, JobHarness, picture

REASONED = ("InputRejected", "InputIncomplete", "EngineFailure")
"""Errors that a photo's sidecar may have to explain, whatever raises them."""


def fail_with(error: BaseException) -> Callable[[int], None]:
    def at_step(step: int) -> None:
        raise error

    return at_step


def a_text(shop: JobHarness) -> None:
    shop.drop("photo.png", b"Dear diary, this is not a picture." * 9)
    shop.work()


def a_name_with_a_line_break(shop: JobHarness) -> None:
    shop.drop("a\nphoto.png", picture(size=(40, 20)))
    shop.work()


def found_by_the_engine(shop: JobHarness) -> None:
    shop.engine.at_step = fail_with(InputRejected("it has no edges", "draw some"))
    shop.drop()
    shop.work()


def a_picture_that_never_ends(shop: JobHarness) -> None:
    shop.drop("photo.png", picture()[:-40])
    shop.work_and_wait()


def a_loss_that_goes_astray(shop: JobHarness) -> None:
    shop.engine.at_step = fail_with(EngineFailure("the loss became nan", "lower the rate"))
    shop.drop()
    shop.work_and_wait()


def a_format_that_is_too_small(shop: JobHarness) -> None:
    shop.engine.at_step = fail_with(ConfigError("a PNG can't hold that", "be modest"))
    shop.drop()
    shop.work()


def an_unexpected_error(shop: JobHarness) -> None:
    shop.engine.at_step = fail_with(ValueError("shapes differ:\n  (1, 2)\n  (3, 4)"))
    shop.drop()
    shop.work_and_wait()


def a_process_that_dies(shop: JobHarness) -> None:
    shop.drop()
    for _ in range(3):
        shop.engine.at_step = fail_with(Died())
        with pytest.raises(Died):
            shop.work()
        shop.restart()
    shop.work()


def a_person_who_does_not_want_it(shop: JobHarness) -> None:
    shop.drop()
    shop.request_cancel(shop.job())
    shop.work()


@pytest.mark.parametrize(
    ("failure", "happen"),
    [
        ("input", a_text),
        ("input", a_name_with_a_line_break),
        ("input", found_by_the_engine),
        ("incomplete", a_picture_that_never_ends),
        ("engine", a_loss_that_goes_astray),
        ("configuration", a_format_that_is_too_small),
        ("internal", an_unexpected_error),
        ("crash", a_process_that_dies),
        ("cancelled", a_person_who_does_not_want_it),
    ],
)
def test_a_rejection_is_one_sentence_with_remedies(
    shop: JobHarness, failure: str, happen: Callable[[JobHarness], None]
) -> None:
    """In the sidecar, and in `styled status` and `styled jobs` alike."""
    happen(shop)
    (path,) = (shop.config.rejected / "oil").glob("*.json")
    rejected = json.loads(path.read_bytes())["rejected"]
    assert rejected["failure"] == failure
    assert rejected["reason"] not in ("", "unknown")
    assert len(rejected["reason"].splitlines()) == 1
    assert rejected["remedies"]
    for remedy in rejected["remedies"]:
        assert remedy
        assert len(remedy.splitlines()) == 1
        assert remedy not in rejected["reason"]
    for command in ("status", "jobs"):
        result = CliRunner().invoke(app, [command, "--json", "-c", str(shop.base / "config.yaml")])
        told = json.loads(result.stdout)
        (job,) = told if isinstance(told, list) else told["last"]
        assert (job["reason"], job["remedies"]) == (rejected["reason"], rejected["remedies"])


def raised(names: tuple[str, ...]) -> Iterator[tuple[str, ast.Call]]:
    """Yield where in the program errors of these names are made, and how."""
    package = Path(styled.__file__).parent
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in names:
                place = f"{path.relative_to(package)}:{node.lineno}: {ast.unparse(node.func)}"
                yield place, node


def test_every_error_about_a_photo_has_a_remedy() -> None:
    """Wherever the decoder or the engine refuses a photo it says what can be done."""
    found = dict(raised(REASONED))
    assert sum(place.startswith("photos/") for place in found) >= 8
    assert sum(place.startswith("engine/") for place in found) >= 5
    assert [place for place, call in found.items() if len(call.args) < 2] == []
