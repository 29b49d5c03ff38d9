"""Which styles a path belongs to, and where the results go."""

from __future__ import annotations

import os

import pytest

from styled.intake.pairing import Pairing

STYLES = ("night", "wave")
FOLDERS = {"all": ("night", "wave"), "one": ("wave",)}


@pytest.mark.parametrize(
    ("path", "destinations"),
    [
        ("photo.jpg", {"night": "photo.jpg"}),
        ("wave/photo.jpg", {"wave": "photo.jpg"}),
        ("wave/trip/day1/photo.jpg", {"wave": "trip/day1/photo.jpg"}),
        ("all/photo.jpg", {"night": "photo.jpg", "wave": "photo.jpg"}),
        ("all/trip/photo.jpg", {"night": "trip/photo.jpg", "wave": "trip/photo.jpg"}),
        ("one/photo.jpg", {"wave": "photo.jpg"}),
        ("trip/photo.jpg", {"night": "trip/photo.jpg"}),
        ("trip/wave/photo.jpg", {"night": "trip/wave/photo.jpg"}),
        ("all/wave/photo.jpg", {"night": "wave/photo.jpg", "wave": "wave/photo.jpg"}),
        ("wave", {"night": "wave"}),
        ("all", {"night": "all"}),
        ("Wave/photo.jpg", {"night": "Wave/photo.jpg"}),
    ],
)
def test_the_first_folder_decides(path: str, destinations: dict[str, str]) -> None:
    """It is a style's folder or an entry of `folders`; otherwise the default style applies."""
    assert Pairing(STYLES, FOLDERS, "night").destinations(path) == destinations


@pytest.mark.parametrize(
    ("path", "destinations"),
    [
        ("photo.jpg", {}),
        ("trip/photo.jpg", {}),
        ("wave", {}),
        ("wave/photo.jpg", {"wave": "photo.jpg"}),
        ("all/photo.jpg", {"night": "photo.jpg", "wave": "photo.jpg"}),
    ],
)
def test_without_a_default_style_the_rest_stays_put(
    path: str, destinations: dict[str, str]
) -> None:
    """Only files in a style's folder or an entry of `folders` have destinations."""
    assert Pairing(STYLES, FOLDERS, None).destinations(path) == destinations


def test_a_folder_of_several_styles_goes_before_a_style_of_that_name() -> None:
    """`folders: {wave: [night, wave]}` takes precedence over the style `wave`."""
    pairing = Pairing(STYLES, {"wave": ("night", "wave")}, None)
    assert pairing.destinations("wave/a.jpg") == {"night": "a.jpg", "wave": "a.jpg"}


def test_names_that_are_not_utf8_are_kept() -> None:
    """The bytes of a name stay unchanged in the result's path."""
    name = os.fsdecode(b"caf\xe9.jpg")
    assert Pairing(STYLES, FOLDERS, None).destinations(f"wave/{name}") == {"wave": name}
