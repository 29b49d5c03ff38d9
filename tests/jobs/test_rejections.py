"""The reason of a rejection is one sentence, with remedies."""

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
from tests.job_harness import Died, JobHarness, picture

REASONED = ("InputRejected", "InputIncomplete", "EngineFailure")
"""Error classes whose message can become the reason in a sidecar."""


def fail_with(error: BaseException) -> Callable[[int], None]:
    def at_step(step: int) -> None:
        raise error

    return at_step


def a_text(harness: JobHarness) -> None:
    harness.drop("photo.png", b"Dear diary, this is not a picture." * 9)
    harness.work()


def a_name_with_a_line_break(harness: JobHarness) -> None:
    harness.drop("a\nphoto.png", picture(size=(40, 20)))
    harness.work()


def found_by_the_engine(harness: JobHarness) -> None:
    harness.engine.at_step = fail_with(InputRejected("it has no edges", "draw some"))
    harness.drop()
    harness.work()


def a_picture_that_never_ends(harness: JobHarness) -> None:
    harness.drop("photo.png", picture()[:-40])
    harness.work_and_wait()


def a_loss_that_goes_astray(harness: JobHarness) -> None:
    harness.engine.at_step = fail_with(EngineFailure("the loss became nan", "lower the rate"))
    harness.drop()
    harness.work_and_wait()


def a_format_that_is_too_small(harness: JobHarness) -> None:
    harness.engine.at_step = fail_with(ConfigError("a PNG can't hold that", "be modest"))
    harness.drop()
    harness.work()


def an_unexpected_error(harness: JobHarness) -> None:
    harness.engine.at_step = fail_with(ValueError("shapes differ:\n  (1, 2)\n  (3, 4)"))
    harness.drop()
    harness.work_and_wait()


def a_process_that_dies(harness: JobHarness) -> None:
    harness.drop()
    for _ in range(3):
        harness.engine.at_step = fail_with(Died())
        with pytest.raises(Died):
            harness.work()
        harness.restart()
    harness.work()


def a_person_who_does_not_want_it(harness: JobHarness) -> None:
    harness.drop()
    harness.request_cancel(harness.job())
    harness.work()


@pytest.mark.parametrize(
    ("failure", "provoke"),
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
    harness: JobHarness, failure: str, provoke: Callable[[JobHarness], None]
) -> None:
    """Sidecar, `status` and `jobs` have the same reason, on one line, and the same remedies."""
    provoke(harness)
    (path,) = (harness.config.rejected / "oil").glob("*.json")
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
        result = CliRunner().invoke(
            app, [command, "--json", "-c", str(harness.base / "config.yaml")]
        )
        output = json.loads(result.stdout)
        (job,) = output if isinstance(output, list) else output["last"]
        assert (job["reason"], job["remedies"]) == (rejected["reason"], rejected["remedies"])


def error_calls(names: tuple[str, ...]) -> Iterator[tuple[str, ast.Call]]:
    """Yield where the package constructs errors of these names, and the call's AST node."""
    package = Path(styled.__file__).parent
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in names:
                location = f"{path.relative_to(package)}:{node.lineno}: {ast.unparse(node.func)}"
                yield location, node


def test_every_error_about_a_photo_has_a_remedy() -> None:
    """Every rejection that the decoder or the engine raises has a remedy."""
    calls = dict(error_calls(REASONED))
    assert sum(location.startswith("photos/") for location in calls) >= 8
    assert sum(location.startswith("engine/") for location in calls) >= 5
    assert [location for location, call in calls.items() if len(call.args) < 2] == []
