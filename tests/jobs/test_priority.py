"""Photos of higher priority are claimed first, in order of arrival among themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from styled.config import Priorities, load_config, show_config
from styled.errors import ConfigError
from styled.journal.job import Job, JobState
from styled.journal.journal import Journal
from tests.job_harness import Dropped

NONE = Priorities({}, {})


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal.open(tmp_path / "journal.sqlite3")
    yield journal
    journal.close()


def submit(journal: Journal, priorities: Priorities, *inputs: tuple[str, str]) -> None:
    for number, (path, style) in enumerate(inputs):
        journal.submit([Dropped(path, 9, number, {style: path})], 1.0, priorities)


def claim_all(journal: Journal) -> list[str]:
    claimed: list[Job] = []
    while job := journal.claim(2.0):
        claimed.append(job)
    return [job.input for job in claimed]


PHOTOS = (("1", "oil"), ("2", "ink"), ("rush/3", "oil"), ("4", "ink"), ("5", "oil"))


@pytest.mark.parametrize(
    ("priorities", "order"),
    [
        (NONE, ["1", "2", "rush/3", "4", "5"]),
        (Priorities({"ink": 5}, {}), ["2", "4", "1", "rush/3", "5"]),
        (Priorities({"ink": 5}, {"rush": 9}), ["rush/3", "2", "4", "1", "5"]),
        (Priorities({"ink": -1, "oil": 2}, {"rush": 0}), ["1", "5", "rush/3", "2", "4"]),
    ],
)
def test_the_order_of_claims(journal: Journal, priorities: Priorities, order: list[str]) -> None:
    """A folder's own priority counts more than that of the style."""
    submit(journal, priorities, *PHOTOS)
    waiting = [job.input for job in journal.in_state(JobState.QUEUED, limit=-1)]
    assert waiting == order
    assert claim_all(journal) == order


def test_a_new_configuration_reorders_the_queue(journal: Journal) -> None:
    """And what a person has put first stays first."""
    submit(journal, NONE, *PHOTOS)
    jobs = {job.input: job for job in journal.in_state(JobState.QUEUED, limit=-1)}
    assert journal.put_first(jobs["5"])
    assert journal.put_first(jobs["2"])
    journal.set_priorities(Priorities({}, {"rush": 1}))
    assert claim_all(journal) == ["2", "5", "rush/3", "1", "4"]
    assert not journal.put_first(jobs["2"])


def test_a_requeued_job_keeps_its_place(journal: Journal) -> None:
    """It is older than the others of its priority."""
    submit(journal, Priorities({"ink": 5}, {}), *PHOTOS)
    job = journal.claim(2.0)
    assert job is not None
    journal.requeue(job, attempt_counts=False)
    assert claim_all(journal) == ["2", "4", "1", "rush/3", "5"]


def test_priorities_of_the_configuration(tmp_path: Path) -> None:
    """Of styles and of folders; a list of styles is a folder without one of its own."""
    path = tmp_path / "config.yaml"
    path.write_text(
        "styles:\n  oil: {image: a.jpg, priority: 3}\n  ink: {image: a.jpg}\n"
        "folders:\n  all: [oil, ink]\n  rush: {styles: [ink], priority: 0}\n"
    )
    config = load_config(path)
    assert config.folders == {"all": ("oil", "ink"), "rush": ("ink",)}
    of = config.priorities.of
    assert [of("all/x", "oil"), of("all/x", "ink"), of("rush/x", "oil"), of("x", "oil")] == [
        3, 0, 0, 3,
    ]  # fmt: skip


def test_a_shown_configuration_has_priorities_and_outputs_of_styles(tmp_path: Path) -> None:
    """`styled config show` prints what loads as the same."""
    path = tmp_path / "config.yaml"
    path.write_text(
        "styles:\n  oil: {image: a.jpg, priority: 3, output: {format: png}}\n"
        "folders: {rush: {styles: [oil], priority: 4}}\n"
    )
    config = load_config(path)
    again = tmp_path / "again.yaml"
    again.write_text(show_config(config))
    loaded = load_config(again)
    assert (loaded.priorities, loaded.folders) == (config.priorities, config.folders)
    assert loaded.output_of(loaded.styles["oil"]).format == "png"


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ("{rush: {styles: [gone]}}", "folders.rush.styles"),
        ("{rush: {styles: []}}", "folders.rush"),
        ("{rush: {styles: [oil], priority: 1000}}", "folders.rush.priority"),
        ("{rush: {style: [oil]}}", "folders.rush"),
        ("{rush: oil}", "folders.rush"),
    ],
)
def test_problems_of_folders_are_named(tmp_path: Path, folders: str, message: str) -> None:
    """In the long form as in the short one."""
    path = tmp_path / "config.yaml"
    path.write_text(f"styles: {{oil: {{image: a.jpg}}}}\nfolders: {folders}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert f"config.yaml:2: {message}" in str(caught.value)
