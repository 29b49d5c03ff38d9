"""Sidecars keep their published format."""

from __future__ import annotations

import json
from datetime import datetime

import jsonschema
import pytest

from styled.engine_api import TraceRow
from styled.errors import EngineFailure
from styled.job_io.sidecars import loss_info, recipe_fields
from styled.recipes import PYRAMID
from styled.sidecar import SCHEMA_FILE
from tests.job_harness import JobHarness

SCHEMA = json.loads(SCHEMA_FILE.read_bytes())


def test_the_sidecar_of_a_result_keeps_the_schema(harness: JobHarness) -> None:
    """The sidecar of a result is valid by the schema, and all its sections are filled."""
    harness.drop()
    harness.advance(10)
    harness.engine.at_step = lambda step: harness.advance(2)
    harness.work()
    sidecar = harness.sidecar("outbox/oil/photo.png.json")
    jsonschema.validate(sidecar, SCHEMA)
    empty = {key for key, value in sidecar.items() if not value}
    assert empty == {"rejected"}
    assert sidecar["timing"] == {"waited": 10, "prepare": 0, "optimise": 6, "publish": 0}
    assert sidecar["losses"]["first"]["total"] == 1.0
    assert sidecar["losses"]["last"]["total"] == pytest.approx(1 / 3)
    assert sidecar["style"]["images"][0]["path"].endswith("styles/oil.png")
    assert sidecar["recipe"]["name"] == "pyramid"
    assert sidecar["engine"]["peak_memory_bytes"] == 1


def test_times_are_utc_and_in_order(harness: JobHarness) -> None:
    """The times of submission, start and end are in UTC and in order."""
    harness.drop()
    harness.advance(10)
    harness.engine.at_step = lambda step: harness.advance(2)
    harness.work()
    job = harness.sidecar("outbox/oil/photo.png.json")["job"]
    times = [
        datetime.fromisoformat(job[f"{name}_at"]) for name in ("submitted", "started", "finished")
    ]
    assert [time.timestamp() - times[0].timestamp() for time in times] == [0, 10, 16]
    assert {str(time.tzinfo) for time in times} == {"UTC"}


def test_the_sidecar_of_a_rejection_keeps_the_schema(harness: JobHarness) -> None:
    """The sidecar of a rejection is valid by the schema, with reason and attempts."""

    def fail(step: int) -> None:
        raise EngineFailure("the loss became nan")

    harness.engine.at_step = fail
    harness.drop()
    harness.work_and_wait()
    sidecar = harness.sidecar("rejected/oil/photo.png.json")
    jsonschema.validate(sidecar, SCHEMA)
    assert sidecar["result"] is None
    assert sidecar["rejected"]["failure"] == "engine"
    assert sidecar["job"]["attempts"] == 3
    assert sidecar["input"]["bytes"] > 0


def test_recipe_facts_show_every_field(harness: JobHarness) -> None:
    """`recipe_fields` returns every field of a recipe, in JSON types."""
    fields = recipe_fields(PYRAMID)
    assert set(fields) == set(PYRAMID.__slots__)
    assert fields["size"] == {
        "long_edge": 512, "short_edge": None, "megapixels": None, "exact": None, "upscale": False,
    }  # fmt: skip
    assert json.loads(json.dumps(fields)) == fields


def test_loss_facts_frame_the_trace() -> None:
    """`loss_info` has the whole trace, and its first and last rows."""
    rows = [TraceRow(1, step, 9.0 - step, 1.0, 2.0, 3.0) for step in (1, 2, 3)]
    info = loss_info(rows)
    assert (info.first.total, info.last.total) == (8.0, 6.0)
    assert info.trace == tuple(tuple(row) for row in rows)
    assert info.columns == TraceRow._fields
