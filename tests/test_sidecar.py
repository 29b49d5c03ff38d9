"""The sidecar's format: what is written, what the shipped schema says, and both together."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from styled.degradation import Degradation
from styled.files import readable
from styled.sidecar import (
    SCHEMA_FILE,
    EngineFacts,
    InputFacts,
    JobFacts,
    Losses,
    LossFacts,
    Rejection,
    ResultFacts,
    Sidecar,
    StyleFacts,
    StyleImageFacts,
    TimingFacts,
    job_id_in,
    sidecar_schema,
    utc,
)

NOT_UTF8 = os.fsdecode(b"caf\xe9.jpg")
ESCAPED = r"caf\xe9.jpg"


def full_sidecar() -> Sidecar:
    """Return a sidecar in which everything is filled in."""
    return Sidecar(
        job=JobFacts(
            id="abc",
            attempts=2,
            resumed=True,
            submitted_at=utc(0.25),
            started_at=utc(60.0),
            finished_at=utc(120.0),
        ),
        input=InputFacts(
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
        style=StyleFacts(
            name="night", images=(StyleImageFacts(path=NOT_UTF8, sha256="1" * 64, weight=0.7),)
        ),
        recipe={"name": "pyramid", "steps": 10, "layers": {"relu1_1": 0.5}, "size": None},
        engine=EngineFacts(
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
        result=ResultFacts(
            path=f"night/{NOT_UTF8}", sha256="3" * 64, width=640, height=480, format="JPEG"
        ),
        losses=LossFacts(
            first=Losses(total=3.0, content=1.0, style=1.5, tv=0.5),
            last=Losses(total=2.0, content=1.0, style=0.5, tv=0.5),
            trace=((0, 0, 3.0, 1.0, 1.5, 0.5), (1, 10, 2.0, 1.0, 0.5, 0.5)),
        ),
        timing=TimingFacts(waited=1.0, prepare=0.1, optimise=30.0, publish=0.2),
        degraded=(Degradation("device", "CPU for GPU"),),
    )


def rejected_sidecar() -> Sidecar:
    """Return the sidecar of an input of which nothing could be read."""
    return Sidecar(
        job=full_sidecar().job,
        input=InputFacts(path=NOT_UTF8, bytes=0),
        rejected=Rejection(reason="it is empty", failure="input", remedies=("send it again",)),
    )


def written(sidecar: Sidecar) -> dict[str, Any]:
    """Return what a reader of the file sees."""
    content = json.loads(sidecar.to_json())
    assert isinstance(content, dict)
    return content


# The schema


def test_the_shipped_schema_is_that_of_the_code() -> None:
    """Whoever changes the format changes the file that ships with the package."""
    assert json.loads(SCHEMA_FILE.read_text("utf-8")) == sidecar_schema()


def test_the_schema_is_one() -> None:
    """It says which draft it follows, and follows it."""
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
    """Unknown keys, wrong types and values out of range are found by it."""
    content = written(full_sidecar())
    content[section][key] = value
    validator = jsonschema.Draft202012Validator(sidecar_schema())
    assert not validator.is_valid(content)


def test_the_schema_refuses_another_version() -> None:
    """A format that changes gets another number."""
    content = written(full_sidecar()) | {"schema": 2}
    assert not jsonschema.Draft202012Validator(sidecar_schema()).is_valid(content)


# The file


def test_the_file_begins_with_the_number_of_its_format() -> None:
    """Readers can tell at once what they have before them."""
    assert next(iter(written(full_sidecar()).items())) == ("schema", 1)


def test_the_file_is_text_for_people() -> None:
    """It is indented and ends with a line break."""
    data = full_sidecar().to_json()
    assert data.endswith(b"}\n")
    assert b'\n  "job": {\n    "id": "abc"' in data


def test_all_sections_are_there_even_when_empty() -> None:
    """A reader need not ask whether a key exists."""
    content = written(rejected_sidecar())
    assert list(content) == list(written(full_sidecar()))
    assert content["result"] is None
    assert content["degraded"] == []
    assert content["rejected"]["reason"] == "it is empty"


def test_times_are_utc() -> None:
    """In ISO 8601, so that they compare as text."""
    assert utc(0.25) == datetime(1970, 1, 1, 0, 0, 0, 250_000, UTC)
    assert written(full_sidecar())["job"]["submitted_at"] == "1970-01-01T00:00:00.250000Z"


def test_the_trace_says_what_its_columns_are() -> None:
    """Each row has a value for each name."""
    losses = written(full_sidecar())["losses"]
    assert losses["columns"] == ["scale", "step", "total", "content", "style", "tv"]
    assert losses["trace"][1] == [1, 10, 2.0, 1.0, 0.5, 0.5]


def test_a_sidecar_reads_back() -> None:
    """Whoever shows results gets back what was written."""
    assert Sidecar.model_validate_json(full_sidecar().to_json()) == full_sidecar()


def test_unknown_facts_are_refused() -> None:
    """A misspelt name does not vanish silently."""
    with pytest.raises(ValidationError, match="widht"):
        InputFacts.model_validate({"path": "a", "bytes": 1, "widht": 2})


# Names


def test_names_that_are_not_utf8_are_escaped() -> None:
    """In every place where a name may stand; nothing is dropped."""
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
    """A stranger's file under the name of a sidecar raises no error."""
    path = tmp_path / "photo.jpg.json"
    path.write_bytes(content)
    assert job_id_in(path) is None


@pytest.mark.timeout(10)
def test_what_cannot_be_read_is_nobodys(tmp_path: Path) -> None:
    """There may be nothing, a folder, or a pipe that must not be waited for."""
    assert job_id_in(tmp_path / "nothing") is None
    assert job_id_in(tmp_path) is None
    os.mkfifo(tmp_path / "pipe")
    assert job_id_in(tmp_path / "pipe") is None
