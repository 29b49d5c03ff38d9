"""Measuring memory, and detection of actual out-of-memory errors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from styled.engine import memory

CPU = torch.device("cpu")
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="measured in /proc")


@LINUX
def test_what_is_used_grows_with_what_is_allocated() -> None:
    """A tensor of 200 MB shows up in the used bytes and in the peak."""
    memory.empty_cache(CPU)
    before, free = memory.used_bytes(CPU), memory.free_bytes(CPU)
    memory.reset_peak(CPU)
    tensor = torch.ones(50_000_000)
    assert memory.used_bytes(CPU) - before > 150e6
    del tensor
    memory.empty_cache(CPU)
    assert memory.peak_bytes(CPU) - before > 150e6
    assert memory.used_bytes(CPU) - before < 100e6
    memory.reset_peak(CPU)
    assert memory.peak_bytes(CPU) - before < 100e6
    assert free is not None
    assert 0 < free < 1 << 50


def test_the_limit_of_the_own_or_an_outer_cgroup_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Free memory is the minimum over all cgroup levels; cached files count as free."""
    own = tmp_path / "system.slice" / "styled.service"
    own.mkdir(parents=True)
    for folder, limit, used, cached in (
        (own, "max", 50, 10),
        (own.parent, "1000", 700, 100),
        (tmp_path, "5000", 700, 0),
    ):
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon 5\ninactive_file {cached}\n")
    cgroup_file = tmp_path / "cgroup"
    cgroup_file.write_text("1:name=systemd:/elsewhere\n0::/system.slice/styled.service\n")
    assert memory._free_in_cgroup(tmp_path, cgroup_file) == 1000 - 700 + 100
    assert memory._free_in_cgroup(tmp_path, tmp_path / "missing") is None


@LINUX
def test_a_real_failed_allocation_is_recognised() -> None:
    """torch and Python fail to allocate in a process with a limited address space."""
    program = (
        "import resource, torch\n"
        "from styled.engine.memory import is_out_of_memory\n"
        "limit = 64 << 30\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "for allocate, size in ((torch.empty, 1 << 40), (bytearray, 1 << 50)):\n"
        "    try:\n        allocate(size)\n"
        "    except (RuntimeError, MemoryError) as error:\n"
        "        assert is_out_of_memory(error), error\n"
        "    else:\n        raise SystemExit('it was allocated')\n"
    )
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr


def test_other_errors_are_not_taken_for_it() -> None:
    """A wrong shape and another CUDA error are not out-of-memory errors."""
    with pytest.raises(RuntimeError) as caught:
        torch.ones(2) @ torch.ones(3)
    assert not memory.is_out_of_memory(caught.value)
    assert not memory.is_out_of_memory(RuntimeError("CUDA error: an illegal memory access"))


PAINT_EVER_OTHER_SIZES = """
import json
from dataclasses import replace
import torch
from styled.engine.memory import configure_allocator, peak_bytes, reset_peak, used_bytes
from styled.engine.stylize import stylize
from styled.engine.vgg import Vgg19
from styled.engine.weights import untrained
from styled.recipes import PYRAMID

configure_allocator()
cpu = torch.device("cpu")
network = Vgg19(untrained(), cpu)
recipe = replace(
    PYRAMID, steps=2, scales=None,
    content_layers={"relu2_2": 1.0}, style_layers={"relu1_1": 0.8, "relu2_1": 0.2},
)
left, peaks = [], []
for height in (256, 288, 224, 272):
    reset_peak(cpu)
    photo, style = torch.rand(1, 3, height, 320), torch.rand(1, 3, 64, 64)
    for _ in stylize(network, photo, [(style, 1.0)], recipe):
        pass
    left.append(used_bytes(cpu))
    peaks.append(peak_bytes(cpu))
print(json.dumps([left, peaks]))
"""


@LINUX
@pytest.mark.slow
def test_pictures_of_ever_other_sizes_leave_nothing_behind() -> None:
    """At its end a picture's heap memory is returned to the kernel."""
    process = subprocess.run(
        [sys.executable, "-c", PAINT_EVER_OTHER_SIZES], capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    left, peaks = json.loads(process.stdout)
    # The first picture loads code that stays loaded, so compare with the others' growth.
    before, after, peak = left[0], max(left[1:]), min(peaks[1:])
    assert after - before < 0.2 * (peak - before), (left, peaks)
