"""Names for delivered files: free, and never longer than a file system allows."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from styled.delivery.names import (
    MAX_NAME_BYTES,
    ReservedNames,
    candidates,
    free_folder,
    shortened,
    sidecar_path,
    unused_path,
)

TAKEN_BY: dict[str, Callable[[Path], object]] = {
    "a file": Path.touch,
    "a folder": Path.mkdir,
    "a dangling link": lambda path: path.symlink_to("nowhere"),
    "a pipe": os.mkfifo,
}
taken_by_anything = pytest.mark.parametrize("take", TAKEN_BY.values(), ids=TAKEN_BY.keys())


def test_the_best_name_comes_first_then_numbers() -> None:
    """Numbers start with 2 and come before the extension."""
    assert list(islice(candidates("photo.jpg"), 3)) == ["photo.jpg", "photo-2.jpg", "photo-3.jpg"]


@pytest.mark.parametrize(
    ("name", "second"),
    [("photo", "photo-2"), (".photo", ".photo-2"), ("a.b.jpg", "a.b-2.jpg"), ("a.", "a-2.")],
)
def test_numbers_suit_unusual_names(name: str, second: str) -> None:
    """Only what follows the last dot is an extension, and a leading dot is none."""
    assert list(islice(candidates(name), 2)) == [name, second]


def test_a_long_name_is_cut_for_its_number_and_sidecar() -> None:
    """The stem of a 255-byte name is cut, and its extension stays."""
    first, second = islice(candidates("a" * 251 + ".jpg", ".json"), 2)
    assert first == "a" * 246 + ".jpg"
    assert second == "a" * 244 + "-2.jpg"


def test_a_long_name_without_a_sidecar_stays_as_it_is() -> None:
    """A name that fits is not cut."""
    name = "a" * 251 + ".jpg"
    assert next(candidates(name)) == name


@pytest.mark.timeout(10)
def test_a_long_extension_is_cut_like_any_name() -> None:
    """What follows a dot near the beginning of a long name is not taken for an extension."""
    first, second = islice(candidates("a." + "b" * 253, ".json"), 2)
    assert first == "a." + "b" * 248
    assert second == "a." + "b" * 246 + "-2"


def test_names_are_cut_between_characters() -> None:
    """No multi-byte character is split."""
    assert shortened("ä" * 10, 5) == "ää"
    assert shortened(os.fsdecode(b"\xff" * 10), 5) == os.fsdecode(b"\xff" * 5)


@pytest.mark.timeout(30)
@given(
    st.binary(min_size=1, max_size=255).filter(lambda name: not set(name) & set(b"/\0")),
    st.sampled_from(["", ".json"]),
)
def test_any_name_gives_different_names_that_fit(name: bytes, suffix: str) -> None:
    """For names of any bytes, the candidates fit and are all different."""
    names = list(islice(candidates(os.fsdecode(name), suffix), 12))
    assert len(set(names)) == 12
    assert all(0 < len(os.fsencode(n + suffix)) <= MAX_NAME_BYTES for n in names)


# Free paths


def test_a_free_name_is_taken_as_it_is(tmp_path: Path) -> None:
    """A free name gets no number."""
    assert unused_path(tmp_path, "photo.jpg", sidecar=True) == tmp_path / "photo.jpg"


@taken_by_anything
def test_a_taken_name_gets_a_number(tmp_path: Path, take: Callable[[Path], object]) -> None:
    """Anything takes a name, even a dangling link."""
    take(tmp_path / "photo.jpg")
    take(tmp_path / "photo-2.jpg")
    assert unused_path(tmp_path, "photo.jpg", sidecar=False) == tmp_path / "photo-3.jpg"


@taken_by_anything
def test_a_taken_sidecar_name_counts_too(tmp_path: Path, take: Callable[[Path], object]) -> None:
    """A picture and its sidecar always have the same number."""
    take(tmp_path / "photo.jpg.json")
    assert unused_path(tmp_path, "photo.jpg", sidecar=True) == tmp_path / "photo-2.jpg"
    assert unused_path(tmp_path, "photo.jpg", sidecar=False) == tmp_path / "photo.jpg"


def test_the_longest_names_can_be_made(tmp_path: Path) -> None:
    """The file system accepts the name and its sidecar's, also with a number."""
    for _ in range(2):
        path = unused_path(tmp_path, "ö" * 125 + ".jpeg", sidecar=True)
        path.touch(exist_ok=False)
        sidecar_path(path).touch(exist_ok=False)


def test_a_folder_that_is_there_is_used(tmp_path: Path) -> None:
    """An existing folder, or a link to one, gets no number."""
    (tmp_path / "trip").mkdir()
    (tmp_path / "link").symlink_to("trip")
    assert free_folder(tmp_path, "trip") == tmp_path / "trip"
    assert free_folder(tmp_path, "link") == tmp_path / "link"
    assert free_folder(tmp_path, "new") == tmp_path / "new"


def test_a_folder_that_another_thread_makes_meanwhile_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This holds whichever check comes first, so results of one style stay together."""
    for name in ("isdir", "lexists"):
        real = getattr(os.path, name)

        def ask(path: Path, real: Callable[[Path], bool] = real) -> bool:
            answer = real(path)
            path.mkdir(exist_ok=True)
            return answer

        monkeypatch.setattr(os.path, name, ask)
    assert free_folder(tmp_path, "trip") == tmp_path / "trip"


@pytest.mark.parametrize(
    "take", [take for by, take in TAKEN_BY.items() if by != "a folder"], ids=lambda _: ""
)
def test_a_folder_name_that_is_no_folder_gets_a_number(
    tmp_path: Path, take: Callable[[Path], object]
) -> None:
    """A file that has the name of a folder does not block it."""
    take(tmp_path / "trip")
    assert free_folder(tmp_path, "trip") == tmp_path / "trip-2"


def test_the_sidecar_is_beside_its_picture() -> None:
    """Its name is the picture's name with `.json` appended, so `a.jpg` and `a.png` differ."""
    assert sidecar_path(Path("a/photo.jpg")) == Path("a/photo.jpg.json")


def test_names_that_differ_by_case_alone_are_one_name(tmp_path: Path) -> None:
    """They are on exFAT, NTFS, APFS and many network drives."""
    names = ReservedNames()
    first = names.choose(tmp_path, "Ü_1.jpg", job_id="a", sidecar=True)
    second = names.choose(tmp_path, "u\u0308_1.JPG", job_id="b", sidecar=True)
    assert (first.name, second.name) == ("Ü_1.jpg", "u\u0308_1-2.JPG")
    names.discard(first)
    assert names.choose(tmp_path, "ü_1.jpg", job_id="b", sidecar=True).name == "ü_1.jpg"
