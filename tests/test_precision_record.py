"""The precision record: round trip, and handling of damaged files."""

from __future__ import annotations

from pathlib import Path

import pytest

from styled.precision_record import PrecisionRecord


class Warned(list[str]):
    """Collects warnings."""

    def __call__(self, reason: str) -> None:
        """Add one."""
        self.append(reason)


@pytest.fixture
def warned() -> Warned:
    return Warned()


@pytest.fixture
def record(tmp_path: Path, warned: Warned) -> PrecisionRecord:
    return PrecisionRecord(tmp_path / "precision.json", warned)


def test_what_was_remembered_is_found_by_the_next_process(
    record: PrecisionRecord, tmp_path: Path, warned: Warned
) -> None:
    """Entries are kept by device and by torch version."""
    assert record.find("EPYC", "2.14") is None
    record.remember("EPYC", "2.14", "float32")
    record.remember("EPYC", "2.15", "bfloat16")
    record.remember("H200", "2.15", "bfloat16")
    later = PrecisionRecord(tmp_path / "precision.json", warned)
    assert later.find("EPYC", "2.14") == "float32"
    assert later.find("EPYC", "2.15") == later.find("H200", "2.15") == "bfloat16"
    assert later.find("EPYC", "2.16") is later.find("M2", "2.15") is None
    assert warned == []


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\xff", b"[]", b"3", b'{"EPYC": "float32"}', b'{"EPYC": {"2.14": "float64"}}',
        b'{"EPYC": {"2.14": [1]}}', b'{"EPYC": {"2.14": "floa', b"[" * 100_000,
    ],
    ids=["empty", "bytes", "list", "number", "flat", "precision", "type", "torn", "too deep"],
)  # fmt: skip
def test_a_damaged_file_is_reported_and_replaced(
    content: bytes, record: PrecisionRecord, tmp_path: Path, warned: Warned
) -> None:
    """A damaged file gives one warning and no entry, and is replaced by the next `remember`."""
    path = tmp_path / "precision.json"
    path.write_bytes(content)
    assert record.find("EPYC", "2.14") is None
    assert len(warned) == 1
    assert str(path) in warned[0]
    record.remember("EPYC", "2.14", "bfloat16")
    assert record.find("EPYC", "2.14") == "bfloat16"
    assert len(warned) == 1


def test_a_file_that_cannot_be_written_is_a_warning(tmp_path: Path, warned: Warned) -> None:
    """A failed write gives a warning only."""
    record = PrecisionRecord(tmp_path / "missing" / "precision.json", warned)
    record.remember("EPYC", "2.14", "bfloat16")
    assert len(warned) == 1
    assert "measures the precision again" in warned[0]
