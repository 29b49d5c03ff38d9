"""The gallery page in a real browser, opened as a file and over HTTP."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from PIL import Image, ImageOps
from pydantic import JsonValue

from styled.delivery.page import live_file, record_file, render

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Locator, Page

playwright_api = pytest.importorskip(
    "playwright.sync_api", reason="Playwright for Python is not installed"
)
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to test with")

Record = dict[str, JsonValue]

DESKTOP, PHONE = (1280, 900), (360, 740)
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOSTILE = [
    "<img src=x onerror=window.__pwned=1>",
    "\"' onmouseover=window.__pwned=2 x='",
    "javascript:window.__pwned=3",
    "</script><script>window.__pwned=4</script>",
    "first line\nsecond line\u2028third",
    "\u202egpj.exe\u202e \u2066left open",
    "w" * 4000,
    "\udcff\udcfe not Unicode",
    "__proto__",
]
HOSTILE_URLS = [
    "javascript:window.__pwned=5",
    "JavaScript:window.__pwned=6",
    "java\nscript:window.__pwned=7",
    "data:text/html,<script>window.__pwned=8</script>",
    "https://example.org/",
    "//example.org/x.webp",
    "\\\\example.org\\x.webp",
    "/etc/passwd",
    " file:///etc/passwd",
]


# Outboxes


@dataclass
class Gallery:
    """An outbox with a gallery page."""

    root: Path

    def picture(self, record_id: str) -> tuple[str, str, str]:
        """Write a photo and a painting; return the URLs of both thumbs and of the result."""
        photo = Image.linear_gradient("L").resize((96, 64)).convert("RGB")
        painting = ImageOps.colorize(photo.convert("L"), "#16324f", "#ffe9c2")
        thumbs = self.root / "gallery_files" / "thumbs" / record_id[:2]
        thumbs.mkdir(parents=True, exist_ok=True)
        photo.save(thumbs / f"{record_id}-before.webp")
        painting.save(thumbs / f"{record_id}-after.webp")
        result = self.root / "oil" / f"{record_id} 100%.jpg"
        result.parent.mkdir(exist_ok=True)
        painting.resize((960, 640)).save(result)
        result.with_name(f"{result.name}.json").write_text("{}")
        urls = (f"gallery_files/thumbs/{record_id[:2]}/{record_id}-{w}.webp" for w in BOTH)
        before, after = urls
        return before, after, quote(f"oil/{result.name}")

    def write(self, *pages: Sequence[Record], **counts: JsonValue) -> Gallery:
        """Write the page and its record files, oldest first."""
        folder = self.root / "gallery_files" / "records"
        folder.mkdir(parents=True, exist_ok=True)
        everything = [record for page in pages for record in page]
        results = [record for record in everything if record["kind"] == "result"]
        styles: dict[str, JsonValue] = {}
        for record in results:
            of_style = [each for each in results if each["style"] == record["style"]]
            styles.setdefault(str(record["style"]), len(of_style))
        for number, page in enumerate(pages, 1):
            (folder / f"{number:06}.js").write_bytes(record_file(number, page))
        manifest: dict[str, JsonValue] = {
            "version": 1,
            "record_files": len(pages),
            "results": len(results),
            "rejected": len(everything) - len(results),
            "styles": styles,
            "updated": NOON.isoformat(),
            "newest": list(pages[-1]) if pages else [],
            **counts,
        }
        (self.root / "gallery.html").write_bytes(render(manifest))
        return self


BOTH = ("before", "after")


def result(
    number: int, urls: tuple[str, str, str] | None = None, /, **changes: JsonValue
) -> Record:
    """Return the record of a result; the higher its number, the later it was finished."""
    before, after, painting = urls or (None, None, f"oil/{number}.jpg")
    return {
        "id": f"{number:012x}",
        "kind": "result",
        "name": f"trip/photo {number}.jpg",
        "style": "oil",
        "recipe": "pyramid",
        "finished": (NOON + timedelta(hours=number)).isoformat(),
        "seconds": 192.4,
        "width": 960,
        "height": 640,
        "result": painting,
        "sidecar": f"{painting}.json",
        "before": before,
        "after": after,
        "curve": [[1, 0.22], [40, 0.11], [41, 2.0], [150, 0.01]],
        "scales": [1, 41],
        "degraded": [],
        "device": "cpu",
        "weights": "untrained",
        **changes,
    }


def rejected(number: int, **changes: JsonValue) -> Record:
    """Return the record of a rejected photo."""
    return {
        "id": f"{number:012x}",
        "kind": "rejected",
        "name": f"trip/letter {number}.jpg",
        "style": "oil",
        "finished": (NOON + timedelta(hours=number)).isoformat(),
        "reason": "the file is not a picture that styled can read",
        "failure": "input",
        "file": "../rejected/oil/letter.jpg",
        **changes,
    }


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
    """Return an outbox whose folder does not exist yet."""
    return Gallery(tmp_path / "out box #1")


@pytest.fixture
def filled(gallery: Gallery) -> Gallery:
    """Return a gallery of four results on two record files, and two rejected photos."""
    urls = [gallery.picture(f"{number:012x}") for number in range(4)]
    older = [result(0, urls[0], style="ink"), rejected(10, id="a", finished=NOON.isoformat())]
    newer = [
        result(30, urls[1], degraded=["painted smaller", "on the CPU"]),
        result(60, urls[2], name="Günther & Ähren.jpg"),
        rejected(70, style="ink"),
        result(90, urls[3], seconds=41.2),
    ]
    return gallery.write(older, newer)


@pytest.fixture
def hostile(gallery: Gallery) -> Gallery:
    """Return a gallery in which every text and every URL is an attack."""
    urls = gallery.picture("0" * 12)
    records: list[Record] = []
    for number, text in enumerate(HOSTILE):
        attack: Record = {"name": text, "style": text, "recipe": text, "device": text}
        records.append(result(number, urls, degraded=[text], weights=text, **attack))
        records.append(rejected(100 + number, name=text, style=f"{text}.", reason=text))
    for number, url in enumerate(HOSTILE_URLS, 200):
        hostile_urls: Record = dict.fromkeys(("result", "sidecar", "before", "after"), url)
        records.append(result(number, **hostile_urls))
        records.append(rejected(number + 100, file=url))
    broken: Record = {"curve": [[1, None], "x", [2, -1]], "width": "9", "name": None, "style": 7}
    records.append(result(500, **broken))
    return gallery.write(records[:9], records[9:])


@pytest.fixture
def large(gallery: Gallery) -> Gallery:
    """Return a gallery of 5,000 results on 50 record files, and one rejected photo at the end."""
    pages: list[list[Record]] = [
        [
            result(number, style="ink" if number % 25 == 0 else "oil")
            for number in range(first, first + 100)
        ]
        for first in range(0, 5000, 100)
    ]
    pages[0][0] = rejected(0)
    return gallery.write(*pages)


# Visits


@dataclass
class Visit:
    """A page in the browser.

    Attributes:
        messages: Console messages, errors and dialogs.
        requested: All URLs that it has requested.
    """

    page: Page
    messages: list[str] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)

    def note(self, message: ConsoleMessage) -> None:
        """Record a message, unless it is that nothing is being painted: a file is missing then."""
        if "/gallery_files/live/now.js?" not in message.location["url"]:
            self.messages.append(message.text)

    def cards(self, more: str = "") -> Locator:
        """Return the cards on the wall."""
        return self.page.locator(f"#wall > .card{more}")

    def names(self) -> list[str]:
        """Return the names of all cards, in order."""
        return self.page.locator("#wall .name").all_inner_texts()

    def settle(self) -> None:
        """Wait until the page loads no more record files."""
        more = self.page.locator("#more")
        playwright_api.expect(more).not_to_contain_text("Looking", timeout=30_000)

    def choose(self, kind: str) -> None:
        """Click on one of the three kinds."""
        self.page.locator(".kinds label", has_text=kind).click()
        self.settle()

    def data_pages(self) -> list[str]:
        """Return the names of the record files that were requested."""
        return [url.rsplit("/", 1)[1] for url in self.requested if url.endswith(".js")]

    def expect(self, count: int, line: str) -> None:
        """Wait for `count` cards, and for this text of the counter."""
        playwright_api.expect(self.cards()).to_have_count(count)
        playwright_api.expect(self.page.locator("#count")).to_have_text(line)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Start a browser."""
    playwright_api.expect.set_options(timeout=30_000)
    with playwright_api.sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield started
        started.close()


Open = Callable[..., Visit]


@pytest.fixture
def visit(browser: Browser) -> Iterator[Open]:
    """Return a function that opens a gallery, or any URL."""
    contexts = []

    def open_page(
        target: Gallery | str,
        size: tuple[int, int] = DESKTOP,
        scheme: str = "light",
        javascript: bool = True,
    ) -> Visit:
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme="dark" if scheme == "dark" else "light",
            java_script_enabled=javascript,
            timezone_id="Europe/Berlin",
        )
        contexts.append(context)
        page = context.new_page()
        opened = Visit(page)
        page.on("console", opened.note)
        page.on("pageerror", lambda error: opened.messages.append(str(error)))
        page.on("dialog", lambda dialog: opened.messages.append(f"dialog {dialog.message}"))
        page.on("request", lambda request: opened.requested.append(request.url))
        page.goto(target if isinstance(target, str) else (target.root / "gallery.html").as_uri())
        opened.settle()
        return opened

    yield open_page
    for context in contexts:
        context.close()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder without logging."""

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@pytest.fixture
def served(filled: Gallery) -> Iterator[str]:
    """Serve the filled gallery over HTTP; return its URL."""
    handler = functools.partial(QuietHandler, directory=str(filled.root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


# Opening


def assert_all_shown(opened: Visit, root: str) -> None:
    """Check that all pictures are shown and come from `root`, without any message."""
    opened.expect(4, "4 paintings")
    assert opened.data_pages() == ["000001.js"]
    for image in opened.page.locator("#wall img").all():
        image.scroll_into_view_if_needed()
        playwright_api.expect(image).to_have_js_property("complete", True)
        assert image.evaluate("image => image.naturalWidth") == 96
    opened.page.get_by_role("button", name="Show Günther & Ähren.jpg large").click()
    # Waiting for a condition in JavaScript would need `eval`, which the page's policy forbids.
    deadline = time.monotonic() + 30.0
    while opened.page.evaluate("document.querySelector('.full').naturalWidth") != 960:
        assert time.monotonic() < deadline
        opened.page.wait_for_timeout(20)
    requested = [url for url in opened.requested if not url.startswith("data:image/svg+xml,")]
    assert [url for url in requested if not url.startswith(root)] == []
    assert opened.messages == []


def test_a_double_click_is_enough(filled: Gallery, visit: Open) -> None:
    """Opened as a file, the page shows everything and requests nothing outside its folder."""
    assert_all_shown(visit(filled), filled.root.as_uri())


def test_the_folder_can_be_served(served: str, visit: Open) -> None:
    """Over HTTP the page works in the same way under the same policy."""
    assert_all_shown(visit(f"{served}gallery.html"), served)


def test_a_card_says_what_was_painted_and_how(filled: Gallery, visit: Open) -> None:
    """The newest comes first, with name, style, size, time, local date, loss, notes and links."""
    opened = visit(filled)
    assert [name.split(".")[0] for name in opened.names()] == [
        "trip/photo 90",
        "Günther & Ähren",
        "trip/photo 30",
        "trip/photo 0",
    ]
    card = opened.cards().nth(2)
    assert card.locator(".manner").inner_text() == "oil, pyramid"
    assert (
        card.locator(".facts").inner_text()
        == "960 \N{MULTIPLICATION SIGN} 640 · 3 min 12 s · 23 Nov 2026, 19:00"
    )
    assert card.get_by_role("img", name="Loss from 0.22 to 0.010 in 150 steps").is_visible()
    card.get_by_text("2 notes").click()
    assert card.locator(".notes li").all_inner_texts() == ["painted smaller", "on the CPU"]
    links = [link.get_attribute("href") for link in card.get_by_role("link").all()]
    assert links == ["oil/000000000001%20100%25.jpg", "oil/000000000001%20100%25.jpg.json"]
    assert opened.cards().nth(0).locator(".facts").inner_text().split(" · ")[1] == "41 s"
    assert card.get_by_role("img", name="Painting of trip/photo 30.jpg in style oil").count() == 1
    assert card.get_by_role("img", name="Photo trip/photo 30.jpg").count() == 1


def test_an_empty_gallery_is_friendly(gallery: Gallery, visit: Open) -> None:
    """Before anything was painted, the page says what to do."""
    gallery.root.mkdir()
    opened = visit(gallery.write())
    assert opened.page.get_by_text("Nothing painted yet: drop a photo into the inbox.").is_visible()
    assert not opened.page.locator("#filters").is_visible()
    assert opened.messages == []


def test_without_javascript_the_folder_is_named(filled: Gallery, visit: Open) -> None:
    """Without JavaScript the page shows one sentence, and no controls."""
    opened = visit(filled, javascript=False)
    playwright_api.expect(opened.page.locator("noscript p")).to_contain_text("folder outbox")
    assert not opened.page.locator("#filters").is_visible()


# Comparing


def clip(opened: Visit) -> str:
    """Return how the first painting is clipped."""
    painting = opened.cards().first.locator(".after")
    return str(painting.evaluate("image => getComputedStyle(image).clipPath"))


def test_the_slider_moves_by_keyboard(filled: Gallery, visit: Open) -> None:
    """The arrow keys uncover the painting, and `aria-valuetext` says how much of it is visible."""
    opened = visit(filled)
    slider = opened.page.get_by_role(
        "slider", name="Compare photo and painting of trip/photo 90.jpg", exact=True
    )
    slider.focus()
    opened.page.keyboard.press("Home")
    assert clip(opened) == "inset(0px 100% 0px 0px)"
    opened.page.keyboard.press("ArrowRight")
    assert clip(opened) == "inset(0px 99% 0px 0px)"
    assert slider.get_attribute("aria-valuetext") == "1 % painting"
    outline = opened.cards().first.locator(".split").evaluate("e => getComputedStyle(e).outline")
    assert "2px" in outline


def test_the_slider_follows_the_mouse(filled: Gallery, visit: Open) -> None:
    """Dragging uncovers the painting exactly up to the mouse pointer."""
    opened = visit(filled)
    frame = opened.cards().first.locator(".frame")
    frame.scroll_into_view_if_needed()
    box = frame.bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    opened.page.mouse.move(box["x"] + box["width"] * 0.6, middle)
    opened.page.mouse.down()
    opened.page.mouse.move(box["x"] + box["width"] * 0.25, middle, steps=4)
    opened.page.mouse.up()
    assert clip(opened) == "inset(0px 75% 0px 0px)"


@pytest.mark.parametrize(("missing", "left"), [("before", ["after"]), ("after", [])])
def test_a_missing_thumb_leaves_no_hole(
    filled: Gallery, visit: Open, missing: str, left: list[str]
) -> None:
    """Without the photo only the painting is shown; without the painting the frame is blank."""
    (filled.root / f"gallery_files/thumbs/00/000000000003-{missing}.webp").unlink()
    frame = visit(filled).cards().first.locator(".frame")
    playwright_api.expect(frame.locator("img")).to_have_count(len(left))
    assert [image.get_attribute("class") for image in frame.locator("img").all()] == left
    assert frame.get_by_role("slider").count() == 0
    assert ("blank" in str(frame.get_attribute("class"))) is not bool(left)


# Filtering


def test_kinds_styles_and_days_are_filters(filled: Gallery, visit: Open) -> None:
    """Each filter restricts the cards, updates the counter, and can be reset."""
    opened = visit(filled)
    opened.choose("Rejected")
    opened.expect(2, "2 rejected photos")
    assert opened.page.get_by_text("the file is not a picture that styled can read").count() == 2
    opened.choose("All")
    opened.expect(6, "6 entries")
    opened.page.get_by_label("Style", exact=True).select_option("ink")
    opened.expect(2, "2 of 6 entries")
    opened.page.get_by_role("button", name="Reset").click()
    opened.expect(4, "4 paintings")
    opened.page.get_by_label("From", exact=True).fill("2026-11-23")
    opened.expect(3, "3 of 4 paintings")
    opened.page.get_by_label("To", exact=True).fill("2026-11-25")
    opened.expect(2, "2 of 4 paintings")
    opened.page.get_by_label("Style", exact=True).select_option("ink")
    opened.expect(0, "0 of 4 paintings")
    assert opened.page.get_by_text("Nothing matches this filter.").is_visible()
    assert opened.messages == []


def test_a_reload_keeps_the_filters(filled: Gallery, visit: Open) -> None:
    """The filters are stored in the URL's hash and restored from it."""
    opened = visit(filled)
    opened.choose("All")
    opened.page.get_by_label("Style", exact=True).select_option("ink")
    opened.page.get_by_label("From", exact=True).fill("2026-11-22")
    assert opened.page.url.endswith("#kind=all&style=ink&from=2026-11-22")
    opened.page.reload()
    opened.expect(2, "2 of 6 entries")
    assert opened.page.get_by_label("Style", exact=True).input_value() == "ink"
    assert opened.page.get_by_label("From", exact=True).input_value() == "2026-11-22"
    assert opened.page.get_by_role("radio", name="All").is_checked()


def test_what_came_later_replaces_what_was_rejected(gallery: Gallery, visit: Open) -> None:
    """A photo rejected earlier is not shown once it was painted; no record is shown twice."""
    same: Record = {"name": "photo.jpg", "style": "oil"}
    other = rejected(3, name="photo.jpg", style="ink")
    twice = result(4)
    gallery.root.mkdir()
    opened = visit(
        gallery.write(
            [rejected(1, **same), other, twice],
            [rejected(2, **same)],
            [
                result(5, **same),
                twice,
            ],
        )
    )
    opened.choose("All")
    opened.expect(3, "3 entries")
    assert opened.names() == ["trip/photo 4.jpg", "photo.jpg", "photo.jpg"]


# The large view


def test_the_large_view_by_keyboard(filled: Gallery, visit: Open) -> None:
    """Enter opens it, arrow keys step, Escape closes it; then the shown card has the focus."""
    opened = visit(filled)
    opened.cards().first.get_by_role("button").focus()
    opened.page.keyboard.press("Enter")
    dialog = opened.page.get_by_role("dialog", name="trip/photo 90.jpg")
    playwright_api.expect(dialog).to_be_visible()
    opened.page.keyboard.press("Escape")
    playwright_api.expect(opened.page.locator("dialog")).to_be_hidden()
    playwright_api.expect(opened.cards().nth(0).get_by_role("button")).to_be_focused()
    opened.page.keyboard.press("Enter")
    for key, name in [
        ("ArrowLeft", "trip/photo 90.jpg"),
        ("ArrowRight", "Günther & Ähren.jpg"),
        ("ArrowRight", "trip/photo 30.jpg"),
        ("ArrowLeft", "Günther & Ähren.jpg"),
    ]:
        opened.page.keyboard.press(key)
        playwright_api.expect(opened.page.locator("#large-name")).to_have_text(name)
    opened.page.keyboard.press("Escape")
    playwright_api.expect(opened.cards().nth(1).get_by_role("button")).to_be_focused()
    assert opened.messages == []


def test_the_large_view_opened_again_at_once(filled: Gallery, visit: Open) -> None:
    """The browser sends the close event only after the next painting has been opened."""
    opened = visit(filled)
    first = opened.cards().first.get_by_role("button")
    first.click()
    first.evaluate("button => { document.querySelector('dialog').close(); button.click(); }")
    opened.page.wait_for_timeout(100)  # for the close event
    opened.page.keyboard.press("ArrowRight")
    playwright_api.expect(opened.page.locator("#large-name")).to_have_text("Günther & Ähren.jpg")
    assert opened.messages == []


def test_a_painting_that_has_gone_is_reported(filled: Gallery, visit: Open) -> None:
    """If the result was deleted, the large view says so."""
    (filled.root / "oil" / "000000000003 100%.jpg").unlink()
    opened = visit(filled)
    opened.cards().first.get_by_role("button").click()
    playwright_api.expect(opened.page.get_by_text("its file has gone")).to_be_visible()


# Attacks


def test_nothing_hostile_runs(hostile: Gallery, visit: Open) -> None:
    """Hostile texts are shown as text, hostile URLs are left out, and no script runs."""
    opened = visit(hostile)
    page = opened.page
    opened.choose("All")
    page.locator("#more").scroll_into_view_if_needed()
    opened.expect(2 * len(HOSTILE) + 2 * len(HOSTILE_URLS) + 1, "37 entries")
    shown = page.locator("#wall .name").all_text_contents()
    assert {text for text in HOSTILE if text.isprintable()} <= set(shown)
    for kind in ("script", "iframe", "object", "embed", "link", "base", "meta", "form"):
        expected = {"script": 2, "meta": 6, "link": 1}.get(kind, 0)
        assert page.locator(kind).count() == expected, kind
    attributes = page.evaluate(
        "[...document.querySelectorAll('*')].flatMap((e) => e.getAttributeNames())"
        ".filter((name) => name.startsWith('on'))"
    )
    assert attributes == []
    addresses = page.evaluate(
        "[...document.querySelectorAll('#wall a, #wall img')].map(e => e.href ?? e.src)"
    )
    root = hostile.root.parent.as_uri()
    assert [url for url in addresses if not url.startswith(root)] == []
    for details in page.locator("details").all():
        details.evaluate("element => { element.open = true }")
    page.get_by_role("button", name="Show <img").first.click()
    playwright_api.expect(page.locator("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    paint(
        hostile,
        *(live_job(number, name=text, style=text) for number, text in enumerate(HOSTILE)),
        *(live_job(100 + number, preview=url) for number, url in enumerate(HOSTILE_URLS)),
        {"id": 7, "fraction": "x", "seconds_left": {}, "width": "9", "name": None},
        None,
    )
    page.reload()
    playwright_api.expect(page.locator("#live-jobs > li")).to_have_count(
        len(HOSTILE) + len(HOSTILE_URLS) + 1
    )
    assert page.locator("#live-jobs img[src]").count() == 0
    for style in page.get_by_label("Style", exact=True).locator("option").all():
        page.get_by_label("Style", exact=True).select_option(style.get_attribute("value"))
    assert page.evaluate("window.__pwned") is None
    assert not [url for url in opened.requested if "example" in url or "passwd" in url]
    assert opened.messages == []


def test_every_hostile_style_is_a_filter(hostile: Gallery, visit: Open) -> None:
    """Any style name can be chosen, and is still chosen after a reload."""
    opened = visit(hostile)
    styles = opened.page.get_by_label("Style", exact=True).locator("option").all()
    values = [str(option.get_attribute("value")) for option in styles[1:]]
    assert len(values) > len(HOSTILE)
    for text in HOSTILE:
        style = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        style = style if "\udcff" not in text else next(v for v in values if "not Unicode" in v)
        opened.page.get_by_label("Style", exact=True).select_option(style)
        opened.expect(1, "1 of 19 paintings")
    opened.page.reload()
    opened.expect(1, "1 of 19 paintings")
    assert opened.page.get_by_label("Style", exact=True).input_value() == "__proto__"


@pytest.mark.parametrize("trusted_types", [True, False])
def test_injected_scripts_do_not_run(filled: Gallery, visit: Open, trusted_types: bool) -> None:
    """Scripts injected into the document do not run, even without Trusted Types."""
    if not trusted_types:
        page = filled.root / "gallery.html"
        policy, rest = page.read_bytes().split(b"; require-trusted-types-for", 1)
        page.write_bytes(policy + rest[rest.index(b'">') :])
    opened = visit(filled)
    blocked = set(opened.page.evaluate(INJECTIONS))
    assert opened.page.evaluate("window.__pwned") is None
    assert blocked >= {"img-src", "connect-src"}
    if trusted_types:
        assert blocked >= {"require-trusted-types-for", "text", "handler", "address", "markup"}
    else:
        assert blocked >= {"script-src-elem", "script-src-attr"}


INJECTIONS = """async () => {
    const blocked = [];
    const attempt = (what, action) => { try { action(); } catch { blocked.push(what); } };
    document.addEventListener('securitypolicyviolation',
        (event) => blocked.push(event.effectiveDirective));
    const inline = document.createElement('script');
    attempt('text', () => { inline.textContent = 'window.__pwned = 1'; });
    inline.append('window.__pwned = 2');
    document.body.append(inline);
    const button = document.createElement('button');
    attempt('handler', () => button.setAttribute('onclick', 'window.__pwned = 3'));
    document.body.append(button);
    button.click();
    const foreign = document.createElement('script');
    attempt('address', () => { foreign.src = 'data:text/javascript,window.__pwned = 4'; });
    document.body.append(foreign);
    attempt('markup', () => { button.innerHTML = '<img src=x onerror="window.__pwned = 5">'; });
    new Image().src = 'http://127.0.0.1:9/beacon.png';
    await fetch('gallery.html').catch(() => {});
    await new Promise((resolve) => setTimeout(resolve, 300));
    return blocked;
}"""


# Large galleries


def test_thousands_are_loaded_while_scrolling(large: Gallery, visit: Open) -> None:
    """Of 5,000 results a few are shown at once, and older ones as the wall is scrolled."""
    assert (large.root / "gallery.html").stat().st_size < 300_000
    opened = visit(large)
    opened.expect(60, "4999 paintings")
    assert opened.data_pages() == []
    for _ in range(12):
        opened.page.locator("#more").scroll_into_view_if_needed()
        opened.settle()
        if len(opened.data_pages()) >= 2:
            break
    assert opened.data_pages()[:2] == ["000049.js", "000048.js"]
    assert 100 < opened.cards().count() < 400
    assert opened.messages == []


def test_a_rare_style_is_searched_for(large: Gallery, visit: Open) -> None:
    """A filter loads older pages only until the window is filled."""
    opened = visit(large)
    opened.page.get_by_label("Style", exact=True).select_option("ink")
    playwright_api.expect(opened.page.locator("#count")).to_have_text("199 of 4999 paintings")
    opened.settle()
    shown = opened.cards().count()
    assert 12 <= shown <= 60
    assert shown == 4 * (1 + len(opened.data_pages()))
    assert len(opened.data_pages()) < 15


def test_everything_is_searched_if_need_be(large: Gallery, visit: Open) -> None:
    """The only rejected photo is found on the oldest of 50 pages."""
    opened = visit(large)
    opened.choose("Rejected")
    opened.expect(1, "1 rejected photo")
    assert len(opened.data_pages()) == 49


def test_older_pages_than_asked_for_stay_unread(large: Gallery, visit: Open) -> None:
    """Loading stops at the first page that is older than the `From` filter."""
    opened = visit(large)
    last = NOON + timedelta(hours=4999)
    opened.page.get_by_label("From", exact=True).fill(f"{last - timedelta(days=6):%Y-%m-%d}")
    opened.page.get_by_label("To", exact=True).fill(f"{last - timedelta(days=4):%Y-%m-%d}")
    opened.settle()
    opened.page.locator("#more").scroll_into_view_if_needed()
    opened.expect(72, "72 of 4999 paintings")
    assert opened.data_pages() == ["000049.js", "000048.js"]


def test_the_large_view_goes_on_into_older_pages(large: Gallery, visit: Open) -> None:
    """The arrow key loads the next record file after the last loaded painting."""
    opened = visit(large)
    opened.cards().nth(59).locator(".expand").evaluate("button => button.click()")
    for _ in range(45):
        opened.page.keyboard.press("ArrowRight")
    playwright_api.expect(opened.page.locator("#large-name")).to_have_text("trip/photo 4895.jpg")
    opened.page.keyboard.press("Escape")
    playwright_api.expect(opened.cards().nth(104).locator(".expand")).to_be_focused()


@pytest.mark.parametrize("damage", [None, b"styledGallery(1, [", b"styledGallery(9, []);\n"])
def test_a_lost_data_page_is_reported(gallery: Gallery, visit: Open, damage: bytes | None) -> None:
    """A missing or damaged record file is named in a message, and the next one is loaded."""
    gallery.root.mkdir()
    gallery.write([result(1)], [result(2)], [result(3)])
    lost = gallery.root / "gallery_files" / "records" / "000002.js"
    if damage is None:
        lost.unlink()
    else:
        lost.write_bytes(damage)
    opened = visit(gallery)
    opened.expect(2, "3 paintings")
    problem = opened.page.get_by_role("status")
    playwright_api.expect(problem).to_contain_text("gallery_files/records/000002.js")
    assert opened.data_pages() == ["000002.js", "000001.js"]


# What is being painted


def live_job(number: int, **changes: JsonValue) -> Record:
    """Return a job as the page is told of it."""
    return {
        "id": f"{number:04x}", "name": f"trip/now {number}.jpg", "style": "oil", "fraction": 0.43,
        "seconds_left": 125, "width": 96, "height": 64, "preview": None, **changes,
    }  # fmt: skip


def paint(gallery: Gallery, *jobs: JsonValue, waiting: int = 0, written: str = "1") -> None:
    """Tell the page that these jobs are being painted."""
    folder = gallery.root / "gallery_files/live"
    folder.mkdir(parents=True, exist_ok=True)
    state: Record = {"written": written, "waiting": waiting, "jobs": list(jobs)}
    (folder / "now.js").write_bytes(live_file(state))


@pytest.mark.parametrize("over_http", [False, True], ids=["file", "http"])
def test_what_is_painted_is_shown_and_goes_on(
    filled: Gallery, served: str, visit: Open, over_http: bool
) -> None:
    """The page follows by itself, and offers what is finished; all is beside it."""
    live = filled.root / "gallery_files/live"
    live.mkdir(parents=True)
    Image.new("RGB", (96, 64), "teal").save(live / "0001.jpg")
    first = live_job(1, preview="gallery_files/live/0001.jpg?1")
    paint(filled, first, live_job(2, fraction=0.0, seconds_left=None), waiting=3)
    opened = visit(f"{served}gallery.html" if over_http else filled)
    page = opened.page
    cards = page.locator("#live-jobs > li")
    playwright_api.expect(cards).to_have_count(2)
    playwright_api.expect(cards.first).to_contain_text("trip/now 1.jpg")
    playwright_api.expect(cards.first).to_contain_text("oil · 43 % · about 2 min 5 s left")
    playwright_api.expect(cards.nth(1)).to_contain_text("oil · 0 %")
    playwright_api.expect(page.locator("#live-waiting")).to_have_text("3 photos waiting")
    image = cards.first.locator("img")
    playwright_api.expect(image).to_be_visible()
    assert image.evaluate("image => image.naturalWidth") == 96
    assert cards.first.locator("progress").evaluate("bar => bar.value") == 0.43
    Image.new("RGB", (90, 60), "gold").save(live / "0001.jpg")
    later = {**first, "fraction": 0.9, "preview": "gallery_files/live/0001.jpg?2"}
    paint(filled, later, written="2")
    playwright_api.expect(cards).to_have_count(1, timeout=15_000)
    playwright_api.expect(cards.first).to_contain_text("90 %")
    playwright_api.expect(image).to_have_js_property("naturalWidth", 90)
    new = page.get_by_role("button", name="Show what is new (1)")
    playwright_api.expect(new).to_be_visible()
    shutil.rmtree(live)
    playwright_api.expect(cards).to_have_count(0, timeout=15_000)
    page.get_by_role("button", name="Show what is new (2)").click()
    playwright_api.expect(page.locator("#live")).to_be_hidden()
    root = served if over_http else filled.root.as_uri()
    requested = [url for url in opened.requested if not url.startswith("data:image/svg+xml,")]
    assert [url for url in requested if not url.startswith(root)] == []
    assert opened.messages == []


def test_a_daemon_that_was_killed_is_not_shown_for_ever(filled: Gallery, visit: Open) -> None:
    """What has not changed for a minute is no longer painted."""
    paint(filled, live_job(1))
    opened = visit(filled)
    opened.page.clock.install()
    opened.page.reload()
    playwright_api.expect(opened.page.locator("#live-jobs > li")).to_have_count(1)
    for _ in range(30):
        opened.page.clock.run_for(3000)
        opened.page.wait_for_timeout(20)
    playwright_api.expect(opened.page.locator("#live-jobs > li")).to_have_count(0)


# Accessibility and layout


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing(
    filled: Gallery, visit: Open, size: tuple[int, int], scheme: str
) -> None:
    """Neither the wall nor the large view has a serious or critical accessibility issue."""
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe for Playwright is not installed"
    )
    paint(filled, live_job(1), live_job(2), waiting=3)
    opened = visit(filled, size, scheme)
    opened.choose("All")
    playwright_api.expect(opened.page.locator("#live-jobs > li")).to_have_count(2)
    found = issues(axe.Axe().run(opened.page))
    opened.cards(".result").first.locator(".expand").click()
    found += issues(axe.Axe().run(opened.page))
    assert found == []


def issues(report: object) -> list[str]:
    """Return the serious and critical issues in a report of axe."""
    violations = getattr(report, "response")["violations"]  # noqa: B009
    grave = [each for each in violations if each["impact"] in ("serious", "critical")]
    return [f"{each['id']}: {[node['html'] for node in each['nodes']]}" for each in grave]


@pytest.mark.parametrize("kind", ["Paintings", "Rejected", "All"])
def test_a_phone_never_scrolls_sideways(hostile: Gallery, visit: Open, kind: str) -> None:
    """At 360 px width even 4,000 letters without a space stay inside the window."""
    paint(hostile, *(live_job(number, name=text) for number, text in enumerate(HOSTILE)))
    opened = visit(hostile, PHONE)
    playwright_api.expect(opened.page.locator("#live-jobs > li")).to_have_count(len(HOSTILE))
    opened.choose(kind)
    opened.page.get_by_role("button", name="Filter", exact=True).click()
    assert opened.page.get_by_label("Style", exact=True).is_visible()
    for card in opened.cards().all():
        card.evaluate("card => { card.style.contentVisibility = 'visible' }")
    assert opened.page.evaluate("document.documentElement.scrollWidth") == 360
    wide = opened.page.evaluate(
        "[...document.querySelectorAll('#wall .label, #wall .mat, #filters *')]"
        ".filter((e) => e.getBoundingClientRect().right > 360).length"
    )
    assert wide == 0


def test_print_shows_pictures_only(filled: Gallery, visit: Open) -> None:
    """Printed pages have no controls and show complete paintings."""
    opened = visit(filled)
    opened.page.emulate_media(media="print")
    assert not opened.page.locator("#filters").is_visible()
    assert not opened.cards().first.get_by_role("slider").is_visible()
    assert clip(opened) == "none"
