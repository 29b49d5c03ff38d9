"""Human-readable durations, sizes and counts."""

from __future__ import annotations

import re

import pytest

from styled.ops.humanize import format_bytes, format_count, format_duration


@pytest.mark.parametrize(
    ("seconds", "text"),
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
def test_a_duration_has_two_units_at_most(seconds: float, text: str) -> None:
    """The second unit is omitted if it is zero, and no unit reaches the next larger one."""
    assert format_duration(seconds) == text


def test_no_duration_counts_sixty_of_what_has_a_larger_unit() -> None:
    """Rounding up carries over to the larger unit."""
    largest = {"s": 59, "min": 59, "h": 23, "d": 4}
    for tenths in (*range(1300), *range(35_000, 37_300), *range(863_000, 3_000_000, 997)):
        text = format_duration(tenths / 10)
        assert re.fullmatch(r"\d+ (s|min|h|d)( \d+ (s|min|h))?", text), text
        for count, unit in re.findall(r"(\d+) (\w+)", text):
            assert int(count) <= largest[unit], text


@pytest.mark.parametrize(
    ("bytes_", "text"),
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
def test_a_size_has_three_digits_at_most(bytes_: float, text: str) -> None:
    """It is in the largest unit that gives at least 1, in powers of 1000."""
    assert format_bytes(bytes_) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 jobs"),
        (1, "1 job"),
        (2, "2 jobs"),
        (1000, "1,000 jobs"),
        (1_234_567, "1,234,567 jobs"),
    ],
)
def test_only_one_is_singular(count: int, text: str) -> None:
    """Zero is plural, and large numbers have thousands separators."""
    assert format_count(count, "job") == text
