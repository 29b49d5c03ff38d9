"""A style's own values of the section `output`."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from styled.config import load_config
from styled.errors import ConfigError
from tests.job_harness import JobHarness


def test_a_style_overrides_the_section_output(tmp_path: Path) -> None:
    """What it does not name is as the section has it."""
    path = tmp_path / "config.yaml"
    path.write_text(
        "styles:\n  oil:\n    image: a.jpg\n    output: {format: png, keep_frames: 5}\n"
        "  ink:\n    image: a.jpg\noutput: {quality: 80, format: jpeg}\n"
    )
    config = load_config(path)
    oil, ink = (config.output_of(config.styles[name]) for name in ("oil", "ink"))
    assert (oil.format, oil.quality, oil.keep_frames) == ("png", 80, 5)
    assert ink == config.output
    assert oil.after_success == config.output.after_success


@pytest.mark.parametrize("text", ["{formt: png}", "{quality: 200}", "{after_success: delete}"])
def test_wrong_values_are_named(tmp_path: Path, text: str) -> None:
    """Only what concerns the result's file may differ between styles."""
    path = tmp_path / "config.yaml"
    path.write_text(f"styles:\n  oil:\n    image: a.jpg\n    output: {text}\n")
    with pytest.raises(ConfigError, match=r"config\.yaml:4: styles\.oil\.output"):
        load_config(path)


def test_results_are_as_their_style_has_it(harness: JobHarness) -> None:
    """Two styles of one photo: one has its own format and size."""
    styles = dict(harness.styles)
    own = styles["oil"].output.model_copy(update={"format": "tiff", "size": "input", "bits": 16})
    styles["oil"] = replace(styles["oil"], output=own)
    harness.styles = styles
    harness.restart()
    file = BytesIO()
    Image.new("RGB", (120, 90), "teal").save(file, "PNG")
    harness.drop("photo.png", file.getvalue(), *styles)
    harness.work()
    assert set(harness.states()) == {"done"}
    results = {name: harness.sidecar(f"outbox/{job.result}.json")["result"]
               for job in harness.jobs() for name in [job.style] if job.result}  # fmt: skip
    oil = results.pop("oil")
    assert (oil["format"], oil["bits"], oil["width"]) == ("tiff", 16, 120)
    for other in results.values():
        assert (other["format"], other["bits"]) == ("png", 8)
