"""Durations and sizes as people say them."""

from __future__ import annotations

MINUTE, HOUR, DAY = 60, 3600, 86400


def duration(seconds: float) -> str:
    """Return a duration in at most two units, such as `2 min 5 s`."""
    whole = max(0, round(seconds))
    if whole < MINUTE:
        return f"{whole} s"
    if whole < HOUR:
        return _two(whole, MINUTE, "min", 1, "s")
    if whole < DAY:
        return _two(whole, HOUR, "h", MINUTE, "min")
    return _two(whole, DAY, "d", HOUR, "h")


def _two(whole: int, large: int, large_name: str, small: int, small_name: str) -> str:
    many, rest = divmod(whole, large)
    few = rest // small
    return f"{many} {large_name} {few} {small_name}" if few else f"{many} {large_name}"


def size(bytes_: float) -> str:
    """Return a size with two or three digits, such as `4.2 GB`."""
    if bytes_ < 1000:
        return some(round(bytes_), "byte")
    amount = float(bytes_)
    for unit in ("kB", "MB", "GB", "TB"):
        amount /= 1000
        if amount < 999.5:  # beyond, it would be rounded to a thousand
            return f"{amount:.3g} {unit}"
    return f"{amount:,.0f} TB"


def some(count: int, noun: str) -> str:
    """Return how many there are, such as `1 job` or `3 jobs`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
