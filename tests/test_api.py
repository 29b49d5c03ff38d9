"""The Python interface, as a program uses it."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
from PIL import Image, ImageCms

import styled
from styled.engine_api import Progress
from styled.errors import ConfigError, InputRejected, StyleUnavailable
from styled.precision_record import KnownPrecisions

DOCS = Path(__file__).parents[1] / "docs/python.md"
FEW: dict[str, Any] = {
    "steps": 2,
    "scales": None,
    "content_layers": {"relu2_1": 1},
    "style_layers": {"relu1_1": 1},
}


@pytest.fixture(scope="module")
def engine() -> styled.Engine:
    """Return an engine with the untrained network."""
    return styled.Engine(weights="untrained", device="cpu", precision="float32")


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    """Return a real photo."""
    return Image.fromarray(getattr(skimage.data, "coffee")()).resize((96, 64))  # noqa: B009


@pytest.fixture(scope="module")
def style() -> Image.Image:
    """Return another one, as the style."""
    return Image.fromarray(getattr(skimage.data, "astronaut")()).resize((64, 64))  # noqa: B009


def test_the_example_of_the_documentation_runs(
    tmp_path: Path, photo: Image.Image, style: Image.Image
) -> None:
    """As it stands, in a process of its own; torch has no reason to import sympy, a slow start."""
    (example,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    photo.save(tmp_path / "photo.jpg")
    photo.rotate(90, expand=True).save(tmp_path / "photo-2.jpg")
    style.save(tmp_path / "style.jpg")
    example += "\nimport sys\nassert 'sympy' not in sys.modules\n"
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "photo-2.jpg (43, 64) 3 steps, 100%" in done.stdout
    with Image.open(tmp_path / "result.png") as image:
        assert image.size == (96, 64)


def test_importing_it_is_light() -> None:
    """Neither torch nor Pillow is imported before the first use."""
    code = "import styled, sys; assert not {'torch', 'PIL', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'paint'"):
        styled.paint  # noqa: B018


def test_the_precision_is_measured_once_in_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """All engines of a program have the same, whatever the load of the machine."""
    ratios = iter([0.5, 2.0])
    monkeypatch.setattr("styled.engine.precision.bfloat16_time_ratio", lambda _: next(ratios))
    monkeypatch.setattr("styled.api.MEASURED", KnownPrecisions({}))
    engines = [styled.Engine(weights="untrained", device="cpu") for _ in range(2)]
    assert [engine.info.precision for engine in engines] == ["bfloat16", "bfloat16"]
    assert next(ratios) == 2.0


def test_pictures_are_paths_bytes_or_images(
    engine: styled.Engine, photo: Image.Image, style: Image.Image, tmp_path: Path
) -> None:
    """All three give the same painting."""
    path = tmp_path / "photo.png"
    photo.save(path)
    results = [
        np.asarray(engine.stylize(one, style, **FEW))
        for one in (photo, path, str(path), path.read_bytes())
    ]
    assert all(np.array_equal(results[0], other) for other in results[1:])
    assert results[0].shape == (64, 96, 3)


def test_profile_transparency_and_odd_modes(
    engine: styled.Engine, photo: Image.Image, style: Image.Image
) -> None:
    """A transparent photo gives a transparent painting; any mode of Pillow's can be painted."""
    clear = photo.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(photo.size))
    assert engine.stylize(clear, style, **FEW).mode == "RGBA"
    for mode in ("L", "P", "CMYK", "I;16", "1", "YCbCr", "F"):
        image = photo.convert("L").convert(mode) if mode == "I;16" else photo.convert(mode)
        assert engine.stylize(image, style, **FEW).size == photo.size
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    file = io.BytesIO()
    photo.save(file, "png", icc_profile=profile)
    assert engine.stylize(file.getvalue(), style, **FEW).mode == "RGB"


def test_progress_is_reported_and_can_end_it(
    engine: styled.Engine, photo: Image.Image, style: Image.Image
) -> None:
    """Once for each step; the engine paints the next picture as usual."""
    seen: list[Progress] = []
    engine.stylize(photo, style, on_progress=seen.append, **FEW)
    assert [one.step for one in seen] == [1, 2]
    assert seen[-1].fraction == 1

    def stop(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.stylize(photo, style, on_progress=stop, **FEW)
    assert engine.stylize(photo, style, **FEW).size == photo.size


def test_a_mask_and_a_strength(
    engine: styled.Engine, photo: Image.Image, style: Image.Image
) -> None:
    """Black stays the photo, and at strength 0 all of it nearly does."""
    mask = Image.new("L", photo.size)
    mask.paste(255, (48, 0, 96, 64))
    painted = np.asarray(engine.stylize(photo, style, mask=mask, **FEW)).astype(int)
    difference = np.abs(painted - np.asarray(photo).astype(int)).max(axis=2)
    assert difference[:, :47].max() == 0
    assert difference[:, 49:].max() > 0
    same = np.asarray(engine.stylize(photo, style, strength=0, **FEW)).astype(int)
    assert np.abs(same - np.asarray(photo).astype(int)).mean() < 1


def test_what_is_not_valid_is_named(
    engine: styled.Engine, photo: Image.Image, style: Image.Image, tmp_path: Path
) -> None:
    """Every argument at once; files that are not pictures; styles that are none."""
    with pytest.raises(ConfigError) as caught:
        engine.stylize(photo, style, strength=101, stepps=3, init="paper")
    for text in ("strength: expected", 'did you mean "steps"', "init: expected"):
        assert text in caught.value.message
    with pytest.raises(ConfigError, match='unknown recipe "pyramit"; did you mean "pyramid"'):
        engine.stylize(photo, style, recipe="pyramit")
    with pytest.raises(ConfigError, match="device: expected"):
        styled.Engine(device="abacus", weights="untrained")
    with pytest.raises(ConfigError, match="style: expected a picture"):
        engine.stylize(photo, [])
    with pytest.raises(InputRejected, match="not a picture"):
        engine.stylize(b"text", style)
    with pytest.raises(StyleUnavailable, match="style 1"):
        engine.stylize(photo, b"text")
    with pytest.raises(FileNotFoundError):
        engine.stylize(tmp_path / "nothing.jpg", style)
