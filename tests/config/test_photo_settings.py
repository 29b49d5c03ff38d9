"""Settings beside a photo: problems and their lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from styled.config.photo_settings import parse_photo_settings
from styled.errors import ConfigError

PATH, STYLES = Path("inbox/a.jpg.yaml"), ("coffee", "swirls")


@pytest.mark.parametrize("text", ["", "style: coffee", "style: [coffee, swirls]", "size: 96"])
def test_valid_settings_have_no_problem(text: str) -> None:
    """One style, several, or none."""
    parse_photo_settings(text.encode(), PATH, STYLES)


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("style: coffe", ['a.jpg.yaml:1: style: "coffe" is not a style']),
        ("style: [coffee,\n missing]", ['a.jpg.yaml:2: style.1: "missing" is not a style']),
        (
            "style: nope\nstrngth: 30\nsize: -4",
            ['a.jpg.yaml:1: style: "nope" is not a style', "a.jpg.yaml:2: strngth: unknown key",
             "a.jpg.yaml:3: size: expected"],
        ),
        ("style: 5", ["a.jpg.yaml:1: style: expected the name of a style"]),
        ("style: {coffee: 1}", ["a.jpg.yaml:1: style: expected the name of a style"]),
        ("style: [5, nope]\nseed: x",
         ["a.jpg.yaml:1: style.0: expected", 'a.jpg.yaml:1: style.1: "nope" is not a style',
          "a.jpg.yaml:2: seed: expected"]),
        ("- style", ["a.jpg.yaml"]),
    ],
)  # fmt: skip
def test_each_problem_is_named_with_its_line(text: str, problems: list[str]) -> None:
    """Unknown styles too, whatever else is wrong."""
    with pytest.raises(ConfigError) as caught:
        parse_photo_settings(text.encode(), PATH, STYLES)
    lines = caught.value.message.splitlines()
    assert len(lines) == len(problems), lines
    for line, problem in zip(lines, problems, strict=True):
        assert line.startswith(problem), line
