"""Durations and sizes as people say them."""

from __future__ import annotations

import re

import pytest

from styled.ops.words import duration, size, some


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-3, "0 s"),
        (0, "0 s"),
        (0.4, "0 s"),
        (1.6, "2 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (60, "1 min"),
        (61, "1 min 1 s"),
        (125, "2 min 5 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h"),
        (3600, "1 h"),
        (3659, "1 h"),
        (3660, "1 h 1 min"),
        (7199, "1 h 59 min"),
        (86399, "23 h 59 min"),
        (86400, "1 d"),
        (89999, "1 d"),
        (90000, "1 d 1 h"),
        (30 * 86400 + 5 * 3600, "30 d 5 h"),
    ],
)
def test_a_duration_has_two_units_at_most(seconds: float, words: str) -> None:
    """The second one is left out where it is nothing, and no unit is ever full."""
    assert duration(seconds) == words


def test_no_duration_counts_sixty_of_what_has_a_larger_unit() -> None:
    """Wherever it is rounded, it is to the larger unit."""
    fullest = {"s": 59, "min": 59, "h": 23, "d": 4}
    for tenths in (*range(1300), *range(35_000, 37_300), *range(863_000, 3_000_000, 997)):
        words = duration(tenths / 10)
        assert re.fullmatch(r"\d+ (s|min|h|d)( \d+ (s|min|h))?", words), words
        for count, unit in re.findall(r"(\d+) (\w+)", words):
            assert int(count) <= fullest[unit], words


@pytest.mark.parametrize(
    ("bytes_", "words"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (1234, "1.23 kB"),
        (12_340, "12.3 kB"),
        (123_400, "123 kB"),
        (999_400, "999 kB"),
        (1_000_000, "1 MB"),
        (4_200_000_000, "4.2 GB"),
        (65_000_000_000, "65 GB"),
        (2_000_000_000_000, "2 TB"),
        (999_000_000_000_000, "999 TB"),
        (1_234_567_000_000_000, "1,235 TB"),
        (999_600, "1 MB"),
        (1, "1 byte"),
        (2e9, "2 GB"),
    ],
)
def test_a_size_has_three_digits_at_most(bytes_: float, words: str) -> None:
    """In the largest unit of which there is one, in powers of a thousand."""
    assert size(bytes_) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 jobs"),
        (1, "1 job"),
        (2, "2 jobs"),
        (1000, "1,000 jobs"),
        (1_234_567, "1,234,567 jobs"),
    ],
)
def test_only_one_is_singular(count: int, words: str) -> None:
    """None is many, and large numbers can be read."""
    assert some(count, "job") == words
