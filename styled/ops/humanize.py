"""Human-readable durations, sizes, counts and names."""

from __future__ import annotations

MINUTE, HOUR, DAY = 60, 3600, 86400


def format_duration(seconds: float) -> str:
    """Return a duration in at most two units, such as `2 min 5 s`."""
    whole = max(0, round(seconds))
    if whole < MINUTE:
        return f"{whole} s"
    if whole < HOUR:
        return _two_units(whole, MINUTE, "min", 1, "s")
    if whole < DAY:
        return _two_units(whole, HOUR, "h", MINUTE, "min")
    return _two_units(whole, DAY, "d", HOUR, "h")


def _two_units(whole: int, large: int, large_name: str, small: int, small_name: str) -> str:
    first, remainder = divmod(whole, large)
    second = remainder // small
    return f"{first} {large_name} {second} {small_name}" if second else f"{first} {large_name}"


def format_bytes(bytes_: float) -> str:
    """Return a size with two or three digits, such as `4.2 GB`."""
    if bytes_ < 1000:
        return format_count(round(bytes_), "byte")
    amount = float(bytes_)
    for unit in ("kB", "MB", "GB", "TB"):
        amount /= 1000
        if amount < 999.5:  # larger amounts would be rounded to 1000
            return f"{amount:.3g} {unit}"
    return f"{amount:,.0f} TB"


def format_count(count: int, noun: str) -> str:
    """Return a count with its noun, such as `1 job` or `3 jobs`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def printable(text: str) -> str:
    r"""Return text with control characters and lone surrogates as escapes such as `\x1b`."""
    return "".join(
        character
        if character.isprintable()
        else character.encode("unicode_escape", "backslashreplace").decode("ascii")
        for character in text
    )
