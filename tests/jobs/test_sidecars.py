"""The account of a job keeps its published format."""

from __future__ import annotations

import json
from datetime import datetime

import jsonschema
import pytest

from styled.engine_api import TraceRow
from styled.errors import EngineFailure
from styled.jobs.sidecars import loss_facts, recipe_facts
from styled.recipes import PYRAMID
from styled.sidecar import SCHEMA_FILE
from tests.jobs.conftest import JobHarness

SCHEMA = json.loads(SCHEMA_FILE.read_bytes())


def test_the_sidecar_of_a_result_keeps_the_schema(shop: JobHarness) -> None:
    """A finished job's sidecar validates, and every section of it is filled."""
    shop.drop()
    shop.advance(10)
    shop.engine.at_step = lambda step: shop.advance(2)
    shop.work()
    sidecar = shop.sidecar("outbox/oil/photo.png.json")
    jsonschema.validate(sidecar, SCHEMA)
    empty = {key for key, value in sidecar.items() if not value}
    assert empty == {"rejected"}
    assert sidecar["timing"] == {"waited": 10, "prepare": 0, "optimise": 6, "publish": 0}
    assert sidecar["losses"]["first"]["total"] == 1.0
    assert sidecar["losses"]["last"]["total"] == pytest.approx(1 / 3)
    assert sidecar["style"]["images"][0]["path"].endswith("styles/oil.png")
    assert sidecar["recipe"]["name"] == "pyramid"
    assert sidecar["engine"]["peak_memory_bytes"] == 1


def test_times_are_utc_and_in_order(shop: JobHarness) -> None:
    """Submitted, started and finished follow each other, with a time zone."""
    shop.drop()
    shop.advance(10)
    shop.engine.at_step = lambda step: shop.advance(2)
    shop.work()
    job = shop.sidecar("outbox/oil/photo.png.json")["job"]
    times = [
        datetime.fromisoformat(job[f"{name}_at"]) for name in ("submitted", "started", "finished")
    ]
    assert [time.timestamp() - times[0].timestamp() for time in times] == [0, 10, 16]
    assert {str(time.tzinfo) for time in times} == {"UTC"}


def test_the_sidecar_of_a_rejection_keeps_the_schema(shop: JobHarness) -> None:
    """A rejection validates too, says why, and counts the attempts."""

    def fail(step: int) -> None:
        raise EngineFailure("the loss became nan")

    shop.engine.at_step = fail
    shop.drop()
    shop.work_and_wait()
    sidecar = shop.sidecar("rejected/oil/photo.png.json")
    jsonschema.validate(sidecar, SCHEMA)
    assert sidecar["result"] is None
    assert sidecar["rejected"]["failure"] == "engine"
    assert sidecar["job"]["attempts"] == 3
    assert sidecar["input"]["bytes"] > 0


def test_recipe_facts_show_every_field(shop: JobHarness) -> None:
    """The recipe is written down field by field, in JSON's own types."""
    facts = recipe_facts(PYRAMID)
    assert set(facts) == set(PYRAMID.__slots__)
    assert facts["size"] == {
        "long_edge": 512, "short_edge": None, "megapixels": None, "exact": None, "upscale": False,
    }  # fmt: skip
    assert json.loads(json.dumps(facts)) == facts


def test_loss_facts_frame_the_trace() -> None:
    """First and last are the ends of the trace, which is kept whole."""
    rows = [TraceRow(1, step, 9.0 - step, 1.0, 2.0, 3.0) for step in (1, 2, 3)]
    facts = loss_facts(rows)
    assert (facts.first.total, facts.last.total) == (8.0, 6.0)
    assert facts.trace == tuple(tuple(row) for row in rows)
    assert facts.columns == TraceRow._fields
