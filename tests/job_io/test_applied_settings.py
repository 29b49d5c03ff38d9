"""The settings beside a photo: what they change, and what is said if they can't be applied."""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path

import pytest

from styled.config import Style
from styled.errors import InputRejected, ResourceUnavailable
from styled.job_io import applied_settings
from styled.job_io.applied_settings import AppliedSettings, apply_photo_settings, mask_info
from styled.recipes import PYRAMID

STYLE = Style((), PYRAMID)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """Return a photo without settings."""
    path = tmp_path / "a.jpg"
    path.write_bytes(b"photo")
    return path


def write(photo: Path, text: str) -> None:
    """Write settings beside the photo."""
    photo.with_name(f"{photo.name}.yaml").write_text(text)


def applied(photo: Path) -> AppliedSettings:
    """Return the style `oil` with the photo's settings."""
    return apply_photo_settings(photo, STYLE, ["oil"])


def test_without_settings_the_style_stays(photo: Path) -> None:
    """Nothing is reported in the sidecar."""
    assert applied(photo) == AppliedSettings(STYLE)


def test_files_beside_the_photo_need_no_settings(photo: Path) -> None:
    """A mask and an initial image that have the photo's name."""
    mask, init = (photo.with_name(f"a.jpg{suffix}") for suffix in (".mask.png", ".init.png"))
    mask.write_bytes(b"mask")
    init.write_bytes(b"init")
    found = applied(photo)
    assert (found.mask, found.style.init_image, found.info) == (mask, init, None)
    described = mask_info(mask, b"mask")
    assert described is not None
    assert (described.path, described.sha256) == (mask.name, hashlib.sha256(b"mask").hexdigest())
    assert mask_info(None, None) is None


def test_settings_change_the_style_and_are_described(photo: Path) -> None:
    """The sidecar gets their name, digest and values."""
    text = "strength: 30\nseed: 7\noverrides: {steps: 4}\n"
    write(photo, text)
    found = applied(photo)
    assert (found.style.recipe.strength, found.style.recipe.seed) == (30, 7)
    assert found.style.recipe.steps == 4
    assert found.mask is None
    assert found.info is not None
    assert found.info.path == "a.jpg.yaml"
    assert found.info.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert found.info.values == {"strength": 30, "seed": 7, "overrides": {"steps": 4}}


def test_named_files_replace_those_of_the_photo(photo: Path) -> None:
    """A mask and an initial image for several photos."""
    for name in ("a.jpg.mask.png", "frame.mask.png", "a.jpg.init.png", "sky.init.png"):
        photo.with_name(name).write_bytes(b"picture")
    write(photo, "mask: frame.mask.png\ninit_image: sky.init.png\n")
    found = applied(photo)
    assert found.mask == photo.with_name("frame.mask.png")
    assert found.style.init_image == photo.with_name("sky.init.png")


@pytest.mark.parametrize(
    ("text", "what"),
    [("mask: frame.mask.png", "mask"), ("init_image: sky.init.png", "initial image")],
)
@pytest.mark.parametrize("linked", [False, True])
def test_a_named_file_must_be_there(photo: Path, text: str, what: str, linked: bool) -> None:
    """A link is none: it may lead anywhere."""
    name = text.split()[1]
    if linked:
        photo.with_name(name).symlink_to(photo)
    write(photo, text)
    with pytest.raises(InputRejected, match=f"the {what} {name}, which is not there"):
        applied(photo)


def test_wrong_settings_reject_the_photo(photo: Path) -> None:
    """All problems in one message."""
    write(photo, "strenght: 30\nseed: many\n")
    with pytest.raises(InputRejected, match=r"settings are not valid: .*strenght.*seed"):
        applied(photo)


def test_settings_that_cannot_be_read_are_waited_for(
    photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No photo is painted without them; but if they have just gone, they do not count."""
    write(photo, "strength: 30")
    errors = [PermissionError(errno.EACCES, "Permission denied"), FileNotFoundError()]

    def refuse(path: Path) -> int:
        raise errors.pop(0)

    monkeypatch.setattr(applied_settings, "open_regular", refuse)
    with pytest.raises(ResourceUnavailable, match=r"a\.jpg\.yaml can't be read: Permission"):
        applied(photo)
    assert applied(photo) == AppliedSettings(STYLE)
