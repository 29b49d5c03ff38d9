"""The wheel and the sdist: complete, and what is installed from them works outside the checkout."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from tests.packaging.distributions import ROOT, Environment, build, install

# Long, because whole programs run, possibly on a busy machine.
pytestmark = pytest.mark.timeout(1300)

SHARE = (
    "alerts.example.yaml", "config.example.yaml", "drop-ins/cluster.conf",
    "drop-ins/local-cluster.conf", "lib/systemd/system/styled-worker.service",
    "lib/systemd/system/styled.service", "lib/systemd/system/styled@.service",
    "lib/sysusers.d/styled.conf", "lib/tmpfiles.d/styled.conf",
)  # fmt: skip

CONSUMER = '''\
"""A program that uses styled, checked by mypy as strictly as it can."""

from pathlib import Path

import styled
from PIL.Image import Image


def paint(photo: Path, style: bytes) -> Image:
    one = styled.stylize(photo, style, strength=70, size=96, weights="untrained")
    engine = styled.Engine(weights="untrained", device="cpu")
    steps: list[float] = []
    two = engine.stylize(
        one, [style, photo], recipe="pyramid", on_progress=lambda now: steps.append(now.fraction)
    )
    print(engine.info.device, styled.__version__.upper(), two.size[0] + 1)
    return two
'''

WRONG_USES = (
    'styled.stylize("photo.jpg", "style.jpg", strength="much")',
    'styled.stylize("photo.jpg")',
    'styled.Engine(colour="blue")',
    "styled.paint()",
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return an sdist of this checkout, and a wheel of that sdist."""
    wheel, sdist = build(tmp_path_factory.mktemp("build") / "both")
    assert (wheel.suffix, sdist.suffix) == (".whl", ".gz")
    return sdist, wheel


@pytest.fixture(scope="module")
def installed(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Return an environment in which the wheel is installed."""
    return install(tmp_path_factory.mktemp("installed") / "venv", built[1])


def content(wheel: Path) -> dict[str, bytes]:
    """Return the files of a wheel but for `RECORD`, which has dates of none but hashes of all."""
    with zipfile.ZipFile(wheel) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def test_what_is_uploaded_is_well_formed(built: tuple[Path, Path]) -> None:
    """Twine and check-wheel-contents find nothing to object to."""
    for command in (
        ["twine", "check", "--strict", *map(str, built)],
        ["check_wheel_contents", str(built[1])],
    ):
        done = subprocess.run(
            [sys.executable, "-m", *command], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_sdist_has_all_that_is_needed_to_work_on_styled(built: tuple[Path, Path]) -> None:
    """All committed files but those of the repository's host: code, tests, documentation."""
    listed = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"], cwd=ROOT, capture_output=True
    )
    if listed.returncode:
        pytest.skip("this is no checkout of git's")
    committed = set(listed.stdout.decode().rstrip("\0").split("\0"))
    with tarfile.open(built[0]) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    missing = {name for name in committed - packed if (ROOT / name).exists()}
    assert {name for name in missing if not name.startswith((".ci/", ".github/"))} == set()


def test_the_wheel_is_the_same_from_sdist_and_checkout(
    built: tuple[Path, Path], tmp_path: Path
) -> None:
    """And it has the package with its data and types, the service's files, and nothing else."""
    (direct,) = build(tmp_path / "direct", "--wheel")
    files = content(built[1])
    assert content(direct) == files
    package = {
        str(path.relative_to(ROOT)) for path in (ROOT / "styled").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }  # fmt: skip
    assert {name for name in files if name.startswith("styled/")} == package
    assert {"styled/py.typed", "styled/sidecar.schema.json"} < package
    others = {name for name in files if not name.startswith(("styled/", "styled-0.1.0.dist-info/"))}
    assert others == {f"styled-0.1.0.data/data/share/styled/{name}" for name in SHARE}


def test_the_installed_files_of_the_service_are_those_of_the_checkout(
    installed: Environment,
) -> None:
    """The unit files, their drop-ins and the example configuration."""
    for name in SHARE:
        data = (installed.folder / "share/styled" / name).read_bytes()
        original = name.removeprefix("lib/systemd/system/").removeprefix("lib/")
        folder = ROOT if name == "config.example.yaml" else ROOT / "systemd"
        assert data == (folder / original).read_bytes(), name


def test_the_doctor_of_an_installed_styled_examines_the_machine(installed: Environment) -> None:
    """It runs from any folder, and reports no broken installation."""
    version = installed.run("styled", "--version")
    assert version.stdout.split() == ["styled", "0.1.0"]
    assert installed.run("styled", "init", "photos", "--weights", "untrained").returncode == 0
    done = installed.run("styled", "doctor", "-c", "photos/config.yaml", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)


@pytest.mark.parametrize("kind", ["wheel", pytest.param("sdist", marks=pytest.mark.heavy)])
def test_the_demo_shows_a_painting_and_says_where_it_is(
    built: tuple[Path, Path], installed: Environment, kind: str, tmp_path: Path
) -> None:
    """Without network access the demo writes a result and a sidecar, and prints what it does."""
    environment = install(tmp_path / "venv", built[0]) if kind == "sdist" else installed
    completed = environment.run("styled", "demo", "--out", "demo", timeout=1200)
    assert completed.returncode == 0, completed.stderr
    result = environment.folder / "demo/outbox/red-trees/lighthouse.jpg"
    assert str(result) in completed.stdout
    assert "untrained" in completed.stdout
    assert "painting: 0%" in completed.stderr  # without a terminal, in lines
    with Image.open(result) as picture:
        assert max(picture.size) >= 256
    sidecar = json.loads(result.with_name("lighthouse.jpg.json").read_bytes())
    assert {"kind": "weights", "message": "the network is untrained"} in sidecar["degraded"]
    second = environment.run("styled", "demo", "--out", "demo")
    assert second.returncode == 73
    assert "already there" in second.stderr


def test_programs_that_use_styled_are_checked_by_its_types(installed: Environment) -> None:
    """Under `mypy --strict` a right use passes, and each wrong one is found."""
    consumer = installed.folder / "consumer.py"

    def check(text: str) -> subprocess.CompletedProcess[str]:
        consumer.write_text(text)
        return subprocess.run(
            [sys.executable, "-m", "mypy", "--strict", "--python-executable", installed.python,
             "--cache-dir", installed.folder / "cache", "--config-file", "", consumer.name],
            cwd=installed.folder, capture_output=True, text=True, timeout=250,
        )  # fmt: skip

    done = check(CONSUMER)
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = check("import styled\n\n" + "\n".join(WRONG_USES) + "\n")
    errors = [line.split(":")[1] for line in wrong.stdout.splitlines() if ": error:" in line]
    assert errors == ["3", "4", "5", "6"]


@pytest.mark.heavy
def test_an_installation_for_the_cpu_is_small(built: tuple[Path, Path], tmp_path: Path) -> None:
    """As docs/guide.md says, from an index; no libraries of NVIDIA's; the demo paints.

    `STYLED_TESTS_TORCH_BACKEND` replaces `cpu`; empty: torch as uv's own settings find it.
    """
    if importlib.util.find_spec("uv") is None:
        pytest.skip("uv is not installed")
    backend = os.environ.get("STYLED_TESTS_TORCH_BACKEND", "cpu")
    environment = Environment(tmp_path / "venv")
    venv.create(environment.folder)
    options = ["--torch-backend", backend] if backend else []
    command = [sys.executable, "-m", "uv", "pip", "install", "-q", "--python"]
    subprocess.run([*command, environment.python, *options, built[1]], check=True)
    names = {path.name for path in environment.site_packages.iterdir()}
    assert "torch" in names
    assert {name for name in names if name.startswith(("nvidia", "triton", "cuda"))} == set()
    size = sum(
        path.stat().st_size for path in environment.folder.rglob("*") if not path.is_symlink()
    )
    assert size < 1.2e9
    assert environment.run("styled", "init", "photos", "--weights", "untrained").returncode == 0
    assert environment.run("styled", "doctor", "-c", "photos/config.yaml").returncode == 0
    assert environment.run("styled", "demo", "--out", "demo", timeout=1200).returncode == 0
    assert (environment.folder / "demo/outbox/red-trees/lighthouse.jpg").exists()
