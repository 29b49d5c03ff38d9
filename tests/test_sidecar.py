"""The sidecar's format: written files, the shipped schema, and their consistency."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pydantic
import pytest
from packaging.version import Version
from pydantic import ValidationError

from styled.degradation import Degradation
from styled.files import readable
from styled.sidecar import (
    SCHEMA_FILE,
    EngineRun,
    InputInfo,
    JobInfo,
    LossInfo,
    LossTerms,
    Rejection,
    ResultInfo,
    Sidecar,
    StyleImageInfo,
    StyleInfo,
    TimingInfo,
    job_id_in,
    sidecar_schema,
    utc,
)

NOT_UTF8 = os.fsdecode(b"caf\xe9.jpg")
ESCAPED = r"caf\xe9.jpg"


def full_sidecar() -> Sidecar:
    """Return a sidecar with all sections."""
    return Sidecar(
        job=JobInfo(
            id="abc",
            attempts=2,
            resumed=True,
            submitted_at=utc(0.25),
            started_at=utc(60.0),
            finished_at=utc(120.0),
        ),
        input=InputInfo(
            path=f"trip/{NOT_UTF8}",
            sha256="0" * 64,
            bytes=1000,
            format="JPEG",
            width=640,
            height=480,
            orientation=6,
            icc="sRGB",
            changed=True,
        ),
        style=StyleInfo(
            name="night", images=(StyleImageInfo(path=NOT_UTF8, sha256="1" * 64, weight=0.7),)
        ),
        recipe={"name": "pyramid", "steps": 10, "layers": {"relu1_1": 0.5}, "size": None},
        engine=EngineRun(
            weights_source=NOT_UTF8,
            weights_sha256="2" * 64,
            device="cpu",
            device_model="AMD EPYC (AVX2)",
            threads=2,
            precision="float32",
            torch="2.6",
            styled="0.1",
            seed=0,
            peak_memory_bytes=1,
        ),
        result=ResultInfo(
            path=f"night/{NOT_UTF8}", sha256="3" * 64, width=640, height=480, format="JPEG"
        ),
        losses=LossInfo(
            first=LossTerms(total=3.0, content=1.0, style=1.5, tv=0.5),
            last=LossTerms(total=2.0, content=1.0, style=0.5, tv=0.5),
            trace=((0, 0, 3.0, 1.0, 1.5, 0.5), (1, 10, 2.0, 1.0, 0.5, 0.5)),
        ),
        timing=TimingInfo(waited=1.0, prepare=0.1, optimise=30.0, publish=0.2),
        degraded=(Degradation("device", "CPU for GPU"),),
    )


def rejected_sidecar() -> Sidecar:
    """Return the sidecar of an input that could not be read."""
    return Sidecar(
        job=full_sidecar().job,
        input=InputInfo(path=NOT_UTF8, bytes=0),
        rejected=Rejection(reason="it is empty", failure="input", remedies=("send it again",)),
    )


def written(sidecar: Sidecar) -> dict[str, Any]:
    """Return the parsed JSON of the file."""
    content = json.loads(sidecar.to_json())
    assert isinstance(content, dict)
    return content


# The schema


@pytest.mark.skipif(
    Version(pydantic.VERSION) < Version("2.14"), reason="older versions describe fewer details"
)
def test_the_shipped_schema_is_that_of_the_code() -> None:
    """The file that ships with the package is regenerated when the format changes."""
    assert json.loads(SCHEMA_FILE.read_text("utf-8")) == sidecar_schema()


def test_the_schema_is_one() -> None:
    """It declares its JSON Schema draft and is valid under it."""
    schema = sidecar_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("sidecar", [full_sidecar(), rejected_sidecar()], ids=["full", "rejected"])
def test_what_is_written_is_valid(sidecar: Sidecar) -> None:
    """A result's sidecar and a rejected input's follow the shipped schema."""
    schema = json.loads(SCHEMA_FILE.read_text("utf-8"))
    jsonschema.Draft202012Validator(schema).validate(written(sidecar))


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("job", "attempts", -1),
        ("job", "surprise", 1),
        ("input", "bytes", "many"),
        ("losses", "trace", [[0, 0, 3.0]]),
        ("result", "sha256", None),
    ],
)
def test_the_schema_refuses_what_is_wrong(section: str, key: str, value: object) -> None:
    """Unknown keys, wrong types and values out of range are invalid."""
    content = written(full_sidecar())
    content[section][key] = value
    validator = jsonschema.Draft202012Validator(sidecar_schema())
    assert not validator.is_valid(content)


def test_the_schema_refuses_another_version() -> None:
    """A changed format gets another version number."""
    content = written(full_sidecar()) | {"schema": 2}
    assert not jsonschema.Draft202012Validator(sidecar_schema()).is_valid(content)


# The file


def test_the_file_begins_with_the_number_of_its_format() -> None:
    """The first key is `schema`."""
    assert next(iter(written(full_sidecar()).items())) == ("schema", 1)


def test_the_file_is_text_for_people() -> None:
    """It is indented and ends with a line break."""
    data = full_sidecar().to_json()
    assert data.endswith(b"}\n")
    assert b'\n  "job": {\n    "id": "abc"' in data


def test_all_sections_are_there_even_when_empty() -> None:
    """All keys exist in every sidecar."""
    content = written(rejected_sidecar())
    assert list(content) == list(written(full_sidecar()))
    assert content["result"] is None
    assert content["degraded"] == []
    assert content["rejected"]["reason"] == "it is empty"


def test_times_are_utc() -> None:
    """They are in ISO 8601, so they can be compared as text."""
    assert utc(0.25) == datetime(1970, 1, 1, 0, 0, 0, 250_000, UTC)
    assert written(full_sidecar())["job"]["submitted_at"] == "1970-01-01T00:00:00.250000Z"


def test_the_trace_says_what_its_columns_are() -> None:
    """Each row has a value for each name."""
    losses = written(full_sidecar())["losses"]
    assert losses["columns"] == ["scale", "step", "total", "content", "style", "tv"]
    assert losses["trace"][1] == [1, 10, 2.0, 1.0, 0.5, 0.5]


def test_a_sidecar_reads_back() -> None:
    """Parsing a written sidecar gives an equal object."""
    assert Sidecar.model_validate_json(full_sidecar().to_json()) == full_sidecar()


def test_unknown_facts_are_refused() -> None:
    """A misspelt name raises ValidationError."""
    with pytest.raises(ValidationError, match="widht"):
        InputInfo.model_validate({"path": "a", "bytes": 1, "widht": 2})


# Names


def test_names_that_are_not_utf8_are_escaped() -> None:
    """This applies to all fields with names; no byte is dropped."""
    content = written(full_sidecar())
    assert content["input"]["path"] == f"trip/{ESCAPED}"
    assert content["style"]["images"][0]["path"] == ESCAPED
    assert content["engine"]["weights_source"] == ESCAPED
    assert content["result"]["path"] == f"night/{ESCAPED}"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (NOT_UTF8, ESCAPED),
        (Path("trip") / NOT_UTF8, f"trip/{ESCAPED}"),
        ("Größe 漢字 🎨.jpg", "Größe 漢字 🎨.jpg"),
    ],
)
def test_readable_names(name: str | Path, text: str) -> None:
    """Only what is not UTF-8 is escaped."""
    assert readable(name) == text


# Whose a sidecar is


def test_a_sidecar_tells_whose_it_is(tmp_path: Path) -> None:
    """The id of the job that published it is found in the file."""
    path = tmp_path / "photo.jpg.json"
    path.write_bytes(full_sidecar().to_json())
    assert job_id_in(path) == "abc"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not JSON",
        b"\xff\xfe\xff",
        b"[]",
        b"{}",
        b'{"job": "abc"}',
        b'{"job": {"id": 7}}',
        full_sidecar().to_json()[:40],
        b"[" * 100_000,
    ],
    ids=["empty", "text", "bytes", "list", "object", "no job", "number", "torn", "too deep"],
)
def test_what_is_no_sidecar_is_nobodys(tmp_path: Path, content: bytes) -> None:
    """Any other file under the name of a sidecar gives None."""
    path = tmp_path / "photo.jpg.json"
    path.write_bytes(content)
    assert job_id_in(path) is None


@pytest.mark.timeout(10)
def test_what_cannot_be_read_is_nobodys(tmp_path: Path) -> None:
    """A missing file, a folder and a pipe give None without blocking."""
    assert job_id_in(tmp_path / "nothing") is None
    assert job_id_in(tmp_path) is None
    os.mkfifo(tmp_path / "pipe")
    assert job_id_in(tmp_path / "pipe") is None
