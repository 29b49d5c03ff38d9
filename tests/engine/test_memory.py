"""What is known about memory, and that a real lack of it is recognised."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from styled.engine import memory

CPU = torch.device("cpu")
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux tells this in /proc")


@LINUX
def test_what_is_used_grows_with_what_is_allocated() -> None:
    """A tensor of 200 MB is seen in use, in the peak, and no longer free."""
    memory.give_back(CPU)
    before, free = memory.used_bytes(CPU), memory.free_bytes(CPU)
    memory.reset_peak(CPU)
    tensor = torch.ones(50_000_000)
    assert memory.used_bytes(CPU) - before > 150e6
    del tensor
    memory.give_back(CPU)
    assert memory.peak_bytes(CPU) - before > 150e6
    assert memory.used_bytes(CPU) - before < 100e6
    memory.reset_peak(CPU)
    assert memory.peak_bytes(CPU) - before < 100e6
    assert free is not None
    assert 0 < free < 1 << 50


def test_the_limit_of_the_own_or_an_outer_cgroup_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the tightest cgroup leaves, cached files not counted, is what is free."""
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
    named = tmp_path / "cgroup"
    named.write_text("1:name=systemd:/elsewhere\n0::/system.slice/styled.service\n")
    assert memory._free_in_cgroup(tmp_path, named) == 1000 - 700 + 100
    assert memory._free_in_cgroup(tmp_path, tmp_path / "missing") is None


@LINUX
@pytest.mark.parametrize("what", ["torch.empty(1 << 40)", "bytearray(1 << 50)"])
def test_a_real_failed_allocation_is_recognised(what: str) -> None:
    """More than there can be, asked of torch and of Python in a process with little."""
    program = (
        "import resource, torch\n"
        "from styled.engine.memory import is_out_of_memory\n"
        "limit = 64 << 30\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        f"try:\n    {what}\n"
        "except (RuntimeError, MemoryError) as error:\n    assert is_out_of_memory(error), error\n"
        "else:\n    raise SystemExit('it was allocated')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_other_errors_are_not_taken_for_it() -> None:
    """A wrong shape is not a lack of memory."""
    with pytest.raises(RuntimeError) as caught:
        torch.ones(2) @ torch.ones(3)
    assert not memory.is_out_of_memory(caught.value)
    assert not memory.is_out_of_memory(RuntimeError("CUDA error: an illegal memory access"))


PAINT_EVER_OTHER_SIZES = """
import json
from dataclasses import replace
import torch
from styled.engine.memory import keep_freed_memory, peak_bytes, reset_peak, used_bytes
from styled.engine.stylize import stylize
from styled.engine.vgg import Vgg19
from styled.engine.weights import untrained
from styled.recipes import PYRAMID

keep_freed_memory()
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
    """What a picture has taken of the process's heap is handed back at its end."""
    done = subprocess.run(
        [sys.executable, "-c", PAINT_EVER_OTHER_SIZES], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    left, peaks = json.loads(done.stdout)
    # What the first one loads on demand stays; compared is what each of the others takes.
    before, after, most = left[0], max(left[1:]), min(peaks[1:])
    assert after - before < 0.2 * (most - before), (left, peaks)
