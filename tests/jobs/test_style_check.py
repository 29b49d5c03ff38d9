"""Styles whose pictures are missing or broken: found, told, and found to be well again."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from styled.config import Style
from styled.jobs import style_check
from styled.jobs.prepare import check_style
from styled.jobs.style_check import StyleCheck
from tests.jobs.conftest import JobHarness, LogLines, picture


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Style]:
    """Return the list of the styles whose pictures were decoded."""
    styles: list[Style] = []

    def watched(style: Style, *, max_pixels: int) -> Sequence[str]:
        styles.append(style)
        return check_style(style, max_pixels=max_pixels)

    monkeypatch.setattr(style_check, "check_style", watched)
    return styles


def test_a_broken_picture_is_decoded_again_only_once_it_has_changed(
    shop: JobHarness, logs: LogLines, decoded: list[Style]
) -> None:
    """It is told once, stays the same trouble, and ends with a picture that can be read."""
    oil = shop.base / "styles/oil.png"
    good = oil.read_bytes()
    oil.write_bytes(b"no picture")
    check = StyleCheck(10**8)
    assert check.check(shop.styles)
    (trouble,) = check.troubles.values()
    assert "oil.png" in trouble
    assert len(decoded) == 2
    assert not check.check(shop.styles)
    assert check.troubles == {"oil": trouble}
    assert len(decoded) == 2
    oil.write_bytes(good)
    assert check.check(shop.styles)
    assert check.troubles == {}
    assert len(decoded) == 3
    assert [line["event"] for line in logs] == ["style.unavailable", "style.recovered"]


def test_a_picture_that_goes_is_missed_without_decoding(
    shop: JobHarness, logs: LogLines, decoded: list[Style]
) -> None:
    """A drive that comes and goes: each change is told once."""
    check = StyleCheck(10**8)
    assert not check.check(shop.styles)
    oil = shop.base / "styles/oil.png"
    oil.unlink()
    assert check.check(shop.styles)
    assert list(check.troubles) == ["oil"]
    assert len(decoded) == 2
    oil.write_bytes(picture("crimson", (48, 40)))
    assert check.check(shop.styles)
    assert not check.check({"ink": shop.styles["ink"]})
    assert [line["event"] for line in logs] == ["style.unavailable", "style.recovered"]
