"""Tests of the YAML parser: values as by `safe_load`, lines of keys, and malicious texts."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from styled.config.problems import Problem
from styled.config.source import SourceError, parse


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\nb: [x, 2.5, true, null, 2024-01-02]\n",
        "base: &base {x: 1, y: 2}\nderived: {<<: *base, y: 3}\n",
        "text: |\n  two\n  lines\nfolded: >\n  one\n  line\n",
        "a: 'quoted: text'\nb: \"\\u00e9\"\n",
        "a: 010\nb: 0x1F\nc: 1_000\nd: 1.0e+3\n",
        "",
    ],
)
def test_values_are_those_of_safe_load(text: str) -> None:
    """The parser gives the same values as `yaml.safe_load`."""
    assert parse(text).data == yaml.safe_load(text)


@pytest.mark.parametrize("text", ["1e-2", "1e6", "-2.E+3", "5E1"])
def test_scientific_notation_is_a_number(text: str) -> None:
    """Numbers with an exponent need no point and no sign, unlike in YAML 1.1."""
    assert parse(f"weight: {text}").data == {"weight": float(text)}
    assert parse(f"weight: '{text}'").data == {"weight": text}


def test_lines_of_keys_and_items() -> None:
    """The line of every key and list item is recorded; merged keys have that of their source."""
    source = parse("a:\n  b: 1\n  c:\n    - x\n    - y: 2\nd: &d\n  e: 1\nf:\n  <<: *d\n  g: 2\n")
    assert source.lines == {
        ("a",): 1,
        ("a", "b"): 2,
        ("a", "c"): 3,
        ("a", "c", 0): 4,
        ("a", "c", 1): 5,
        ("a", "c", 1, "y"): 5,
        ("d",): 6,
        ("d", "e"): 7,
        ("f",): 8,
        ("f", "e"): 7,
        ("f", "g"): 10,
    }
    assert source.known_part(("a", "c", 1, "z", 4)) == ("a", "c", 1)


def test_keys_given_twice_name_both_lines() -> None:
    """A duplicate key is a problem at any depth; overriding a merged key is not."""
    text = "a: &a\n  b: 1\n\n  b: 2\nc:\n  <<: *a\n  b: 3\n"
    assert parse(text).problems == (Problem(("a", "b"), "given twice, on line 2 and on line 4", 4),)


def test_keys_that_are_not_text_are_left_out() -> None:
    """Numbers, booleans and lists as keys are problems; the other keys are still parsed."""
    source = parse("a: {1: x, yes: x, b: x}\n? [c]\n: x\n")
    assert source.data == {"a": {"b": "x"}}
    assert [(problem.path, problem.line) for problem in source.problems] == [
        (("a",), 1),
        (("a",), 1),
        ((), 2),
    ]


BOMB = "a0: &a0 [x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 15)
)
MERGE_BOMB = "a0: &a0 {x: 1}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 15)
)
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 2000))


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "holds more than 20000 values"),
        (MERGE_BOMB, "holds more than 20000 values"),
        ("[" + "x," * 400_000 + "]", "holds more than 20000 values"),
        (CHAIN, "nested too deeply"),
        ("[" * 500_000, "nested too deeply"),
        ("- " * 300_000, "nested too deeply"),
        ("a: &a [*a]", "an alias cannot stand inside what it refers to"),
    ],
    ids=["aliases", "merges", "flat", "alias chain", "brackets", "dashes", "recursion"],
)
def test_texts_made_to_exhaust_are_refused_early(text: str, message: str) -> None:
    """Texts with too many aliases, levels or values are refused within the timeout."""
    with pytest.raises(SourceError, match=message):
        parse(text)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: 1\nb: [1\n", 3, "while parsing a flow sequence, which begins on line 2"),
        ("a: 1\nb: 2024-13-45\n", 2, "cannot be read as timestamp: put it in quotes"),
        ("a: " + "9" * 5000, 1, "cannot be read as int"),
        ("a: !!bool maybe", 1, "cannot be read as bool"),
        ("a: !!python/object:os.system x", 1, "could not determine a constructor"),
        ("a: 1\nb: \x07", 2, "character 0x7 is not allowed"),
        ("a: 1\n---\nb: 2", 2, "but found another document"),
    ],
)
def test_what_cannot_be_read_names_its_line(text: str, line: int, message: str) -> None:
    """Text that cannot be parsed raises a SourceError with a line; nothing is executed."""
    with pytest.raises(SourceError) as caught:
        parse(text)
    assert caught.value.line == line
    assert message in caught.value.message


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("ab1:-[]{}&*!<'\"|>?=~%@\\ \n\t,.#e+\x85"), max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    """For any text the parser succeeds or raises a SourceError."""
    try:
        source = parse(text)
    except SourceError:
        return
    assert all(line >= 1 for line in source.lines.values())
