"""The gallery page as text: its content, and that no text breaks out of its element."""

from __future__ import annotations

import html
import json
import re
from base64 import b64encode
from hashlib import sha256
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from styled.delivery.page import record_file, records_in, render

HOSTILE = "</script><!--<script>&\u2028\u2029\u202e\udcff\"'\\\n"


def manifest(**changes: JsonValue) -> dict[str, JsonValue]:
    """Return a manifest of an empty gallery."""
    return {
        "version": 1,
        "record_files": 0,
        "results": 0,
        "rejected": 0,
        "styles": {},
        "updated": "2026-11-22T11:23:56Z",
        "newest": [],
        **changes,
    }


def inlined(page: str, start: str, end: str) -> str:
    """Return the text between the only `start` in a page and the next `end`."""
    assert page.count(start) == 1
    return page.split(start)[1].split(end)[0]


def policy_of(page: str) -> str:
    """Return the Content-Security-Policy of a page."""
    found = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', page)
    assert found is not None
    return html.unescape(found[1])


def source_of(text: str) -> str:
    """Return the CSP hash source of an inlined text."""
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


# The page


def test_the_policy_knows_exactly_what_is_inlined() -> None:
    """The hashes are those of the script and the style in the page, and nothing else is allowed."""
    page = render(manifest()).decode()
    policy = dict(rule.split(" ", 1) for rule in policy_of(page).split("; "))
    script = source_of(inlined(page, "<script>", "</script>"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == f"{script} 'self' file:"
    assert policy["style-src"] == source_of(inlined(page, "<style>", "</style>"))
    assert "unsafe" not in policy_of(page)


def test_the_policy_comes_first() -> None:
    """It is the first element of the head, and the charset is within the first 1000 bytes."""
    page = render(manifest()).decode()
    head = page.split("<head>")[1].lstrip()
    assert head.startswith('<meta http-equiv="Content-Security-Policy"')
    assert page.encode().index(b'<meta charset="utf-8">') < 1000


def test_the_page_needs_nothing_else() -> None:
    """The page has no external URLs and no inline handlers or styles."""
    page = render(manifest()).decode()
    addresses = set(re.findall(r"\bhttps?:[^\s'\"]*", page))
    assert addresses == {"http://www.w3.org/2000/svg"}  # an XML namespace, which is not loaded
    assert not re.search(r"\s(style|on[a-z]+)=", page)


@pytest.mark.parametrize("name", ["gallery.css", "gallery.js"])
def test_nothing_inlined_ends_its_element(name: str) -> None:
    """Script and style contain nothing that would end the element or change its hash."""
    text = files("styled.delivery.page").joinpath(name).read_bytes().decode()
    assert not re.search(r"</(script|style)|<!--|\r|\0", text, re.IGNORECASE)


def test_a_manifest_stays_in_its_element() -> None:
    """Any text is written as ASCII and reads back unchanged."""
    record: dict[str, JsonValue] = {"id": "1", "name": HOSTILE}
    before = manifest(styles={HOSTILE: 1}, newest=[record])
    page = render(before).decode()
    text = inlined(page, '<script id="manifest" type="application/json">', "</script>")
    assert text.isascii()
    assert not set("<>&") & set(text)
    assert json.loads(text) == before


def test_without_javascript_the_page_names_the_folder() -> None:
    """Without JavaScript the page says where the paintings are."""
    page = render(manifest()).decode()
    assert "<strong>outbox</strong>" in inlined(page, "<noscript>", "</noscript>")


def test_an_empty_page_is_small() -> None:
    """The page without records is less than 100 kB."""
    assert len(render(manifest())) < 100_000


# Record files


def test_a_data_page_is_one_call() -> None:
    """A record file is a call with its number and its records, in ASCII."""
    assert record_file(52, [{"id": "a", "name": "<&>"}]) == (
        b'styledGallery(52, [{"id":"a","name":"\\u003c\\u0026\\u003e"}]);\n'
    )


def test_hostile_texts_stay_texts() -> None:
    """No text ends the call, and it reads back unchanged."""
    records: list[dict[str, JsonValue]] = [{"name": HOSTILE, "reason": "]);\nalert(1);//"}]
    data = record_file(1, records)
    assert data.isascii()
    assert not set(b"<>&") & set(data)
    assert data.count(b"\n") == 1
    assert records_in(data) == records


texts = st.text(st.characters(), max_size=20)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)


@given(st.integers(1, 10**6), st.lists(st.dictionaries(texts, values, max_size=4), max_size=3))
def test_every_data_page_reads_back(number: int, records: list[dict[str, JsonValue]]) -> None:
    """`records_in` is the inverse of `record_file`."""
    assert records_in(record_file(number, records)) == records


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"styledGallery(1, []);",
        b"styledGallery(1, []);\n\n",
        b" styledGallery(1, []);\n",
        b"styledGallery(0, []);\n",
        b"styledGallery(1, {});\n",
        b"styledGallery(1, [1]);\n",
        b"styledGallery(1, [NaN]);\n",
        b'styledGallery(1, [{"seconds": Infinity}]);\n',
        b"styledGallery(1, [{}]);\nstyledGallery(2, [{}]);\n",
        b'styledGallery(1, [{"name": "\xff"}]);\n',
        b"styledGallery(1, [" + b"[" * 100_000 + b"]" * 100_000 + b"]);\n",
        record_file(1, [{"name": "a"}])[:-8],
    ],
    ids=range(13),
)
def test_what_is_no_data_page_is_refused(data: bytes) -> None:
    """Half a page, another script, or anything but records raises `ValueError`."""
    with pytest.raises(ValueError, match=r"record file|JSON|ascii|Expecting|Extra"):
        records_in(data)


def test_numbers_that_json_does_not_know_are_refused() -> None:
    """A record with NaN raises `ValueError`: the page could not be read."""
    with pytest.raises(ValueError, match="JSON"):
        record_file(1, [{"seconds": float("nan")}])
