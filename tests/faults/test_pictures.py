"""Pictures that are bombs, damaged, odd or none at all: each ends as it should, and alone."""

from __future__ import annotations

import hashlib
import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import skimage.data
from PIL import Image, ImageCms

from styled.degradation import Kind
from tests.faults.watchman import Watchman
from tests.studio import Studio

pytestmark = pytest.mark.timeout(400)

COFFEE = Image.fromarray(skimage.data.coffee()).resize((96, 72))  # type: ignore[no-untyped-call]

NOT_A_PICTURE = "is not a picture that styled can read"
TOO_EARLY = "ends too early"


@dataclass(frozen=True)
class Painted:
    """It is painted.

    Attributes:
        degraded: What stands under `degraded`: the kind of each entry, and a part of its message.
        name: Of the result, where it is not the input's.
        facts: What the sidecar says of the input, among other things.
    """

    degraded: tuple[tuple[Kind, str], ...] = ()
    name: str | None = None
    facts: tuple[tuple[str, object], ...] = ()


@dataclass(frozen=True)
class Rejected:
    """It is rejected.

    Attributes:
        word: What the reason contains.
        failure: Its class.
        name: Of what lies in `rejected`, where it is not the input's.
    """

    word: str
    failure: str = "input"
    name: str | None = None


Outcome = Painted | Rejected


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.copy().save(file, format, **options)
    return file.getvalue()


def segment(marker: int, content: bytes) -> bytes:
    """Return a segment of a JPEG."""
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def with_segments(jpeg: bytes, segments: bytes) -> bytes:
    """Return a JPEG with segments at its beginning."""
    return jpeg[:2] + segments + jpeg[2:]


def chunk(kind: bytes, content: bytes) -> bytes:
    """Return a chunk of a PNG."""
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png(
    width: int, height: int, pixels: bytes, *before: bytes, depth: int = 8, colours: int = 2
) -> bytes:
    """Return a PNG that claims a size and holds compressed pixels of any other."""
    header = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            *before,
            chunk(b"IDAT", pixels),
            chunk(b"IEND", b""),
        )
    )


def with_chunks(whole: bytes, *chunks: bytes) -> bytes:
    """Return a PNG with chunks behind its header."""
    return whole[:33] + b"".join(chunks) + whole[33:]


def packed_zeros(count: int) -> bytes:
    """Return so many zeros, compressed."""
    packer = zlib.compressobj(9)
    block = bytes(1024**2)
    parts = [packer.compress(block) for _ in range(count // len(block))]
    return b"".join((*parts, packer.compress(bytes(count % len(block))), packer.flush()))


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("photo.jpg", saved(COFFEE, "JPEG"))
    return file.getvalue()


def endless_pages() -> bytes:
    """Return a TIFF whose first page says that it is followed by itself."""
    whole = bytearray(saved(COFFEE, "TIFF"))
    (directory,) = struct.unpack_from("<I", whole, 4)
    (entries,) = struct.unpack_from("<H", whole, directory)
    struct.pack_into("<I", whole, directory + 2 + 12 * entries, directory)
    return bytes(whole)


def sixteen_bits(format: str) -> bytes:
    levels = bytes(byte for value in COFFEE.convert("L").tobytes() for byte in (value, value))
    return saved(Image.frombytes("I;16", COFFEE.size, levels), format)


def sixteen_bit_colours() -> bytes:
    rows = [
        b"\0" + b"".join(bytes((v, v)) for v in COFFEE.crop((0, y, 96, y + 1)).tobytes())
        for y in range(COFFEE.height)
    ]
    return png(96, 72, zlib.compress(b"".join(rows)), depth=16)


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(COFFEE, "JPEG", exif=exif)


def profile_named(name: str) -> bytes:
    """Return an sRGB profile of another name, which is no longer than its own."""
    own = "sRGB built-in"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert own.encode("utf-16-be") in profile
    return profile.replace(own.encode("utf-16-be"), name.ljust(len(own)).encode("utf-16-be"))


JPEG = saved(COFFEE, "JPEG")
FRAMES: dict[str, Any] = {
    "save_all": True,
    "append_images": [COFFEE.rotate(9), COFFEE.rotate(18)],
}
FIRST_OF_3 = Painted((("frames", "only the first of 3 frames was used"),))
DAMAGED_EXIF = Painted((("metadata", "the EXIF data is damaged and was ignored"),))
DAMAGED_PROFILE = Painted(
    (("color", "the colour profile is damaged and was ignored"),), facts=(("icc", None),)
)


def bombs() -> Iterator[tuple[str, bytes, Outcome]]:
    """Yield pictures that are larger than they look."""
    tiny = zlib.compress(bytes(99))
    large = Rejected("too large")
    small = Rejected("too small")
    yield "header.png", png(60_000, 60_000, tiny), large
    yield "header-only.png", png(60_000, 60_000, tiny)[:60], large
    yield "content.png", png(20_000, 20_000, packed_zeros(20_000 * 2501), depth=1, colours=0), large
    yield "line.png", png(1, 60_000, packed_zeros(60_000 * 4)), small
    yield "row.png", png(60_000, 1, packed_zeros(180_001)), small
    yield "nothing.png", png(0, 0, tiny), small
    yield "negative.png", png(2**32 - 1, 2**32 - 1, tiny), large
    # The rest of what is packed is never unpacked.
    yield "more.png", png(96, 72, packed_zeros(128 * 1024**2)), Painted()
    yield (
        "text.png",
        with_chunks(
            saved(COFFEE, "PNG"), chunk(b"zTXt", b"Title\0\0" + packed_zeros(64 * 1024**2))
        ),
        large,
    )
    yield (
        "profile.png",
        with_chunks(saved(COFFEE, "PNG"), chunk(b"iCCP", b"name\0\0" + packed_zeros(64 * 1024**2))),
        large,
    )
    yield (
        "claims.jpg",
        JPEG.replace(struct.pack(">HH", 72, 96), struct.pack(">HH", 65_000, 65_000)),
        large,
    )
    gif = saved(COFFEE, "GIF")
    yield "canvas.gif", gif[:6] + struct.pack("<HH", 65_000, 65_000) + gif[10:], large
    yield (
        "frame.gif",
        gif.replace(struct.pack("<HHHH", 0, 0, 96, 72), struct.pack("<HHHH", 0, 0, 65_000, 65_000)),
        large,
    )
    bmp = saved(COFFEE, "BMP")
    yield "claims.bmp", bmp[:18] + struct.pack("<ii", 30_000, 30_000) + bmp[26:], large
    control = struct.pack(">II", 2**31 - 1, 0)
    yield (
        "frames.png",
        with_chunks(saved(COFFEE, "PNG"), chunk(b"acTL", control)),
        Painted((("frames", "only the first of 2147483648 frames was used"),)),
    )
    yield "endless.tif", endless_pages(), Painted()


def odd() -> Iterator[tuple[str, bytes, Outcome]]:
    """Yield pictures of unusual kinds."""
    yield "animated.gif", saved(COFFEE, "GIF", **FRAMES), FIRST_OF_3
    yield "animated.webp", saved(COFFEE, "WEBP", **FRAMES), FIRST_OF_3
    yield "animated.png", saved(COFFEE, "PNG", **FRAMES), FIRST_OF_3
    yield (
        "pages.tif",
        saved(COFFEE, "TIFF", **FRAMES),
        Painted((("frames", "only the first of several pages was used"),)),
    )
    yield "16 bit.png", sixteen_bits("PNG"), Painted()
    yield "16 bit.tif", sixteen_bits("TIFF"), Painted()
    yield "48 bit.png", sixteen_bit_colours(), Painted()
    yield (
        "ink.jpg",
        saved(COFFEE.convert("CMYK"), "JPEG"),
        Painted((("color", "CMYK was converted approximately"),)),
    )
    palette = COFFEE.quantize(16)
    yield "palette.png", saved(palette, "PNG", transparency=b"\0\x80\xff"), Painted()
    yield "1 bit.png", saved(COFFEE.convert("1"), "PNG"), Painted()
    yield "clear.png", saved(Image.new("RGBA", (96, 72)), "PNG"), Rejected("transparent all over")
    yield "turned.jpg", turned(), Painted(facts=(("orientation", 6), ("width", 72), ("height", 96)))
    yield "broken-exif.jpg", with_segments(JPEG, segment(0xE1, b"Exif\0\0nonsense")), DAMAGED_EXIF
    loop = b"MM\0*\0\0\0\x08\0\1\x87\x69\0\4\0\0\0\1\0\0\0\x08\0\0\0\x08"
    yield "endless-exif.jpg", with_segments(JPEG, segment(0xE1, b"Exif\0\0" + loop)), Painted()
    yield "broken-icc.png", saved(COFFEE, "PNG", icc_profile=b"no profile" * 20), DAMAGED_PROFILE
    yield (
        "broken-icc.jpg",
        with_segments(JPEG, segment(0xE2, b"ICC_PROFILE\0\1\2" + b"half of a profile")),
        DAMAGED_PROFILE,
    )
    yield (
        "icc-name.png",
        saved(COFFEE, "PNG", icc_profile=profile_named("\x1b[2J\x07 evil")),
        (Painted(facts=(("icc", "[2J evil"),))),
    )
    yield "garbage-behind.jpg", JPEG + random.Random(1).randbytes(50_000), Painted()
    yield "zip-behind.jpg", JPEG + zipped(), Painted()
    comments = segment(0xFE, b"\x1b[31m <script> %n" * 3000) * 300
    yield "comments.jpg", with_segments(JPEG, comments), Painted()
    yield (
        "png-inside.jpg",
        saved(COFFEE, "PNG"),
        Painted(name="png-inside.png", facts=(("format", "png"),)),
    )
    yield "jpeg-inside.tiff", JPEG, Painted(name="jpeg-inside.jpg", facts=(("format", "jpeg"),))
    yield "shouting.JPEG", JPEG, Painted()


def damaged() -> Iterator[tuple[str, bytes, Outcome]]:
    """Yield files that can't be read."""
    whole = saved(COFFEE, "PNG")
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    yield "checksum.png", bytes(flipped), Rejected("can't be decoded as PNG")
    yield (
        "headless.jpg",
        JPEG[:2] + JPEG[JPEG.index(b"\xff\xda") :],
        Rejected("can't be decoded as JPEG"),
    )
    yield "page.jpg", b"<!DOCTYPE html><script>alert(1)</script>\n" * 9, Rejected(NOT_A_PICTURE)
    # A name that the sidecar of `page.jpg` would like to have, and a content it might have.
    yield (
        "page.jpg.json",
        b'{"schema": 1, "job": {"id": "x"}}',
        Rejected(NOT_A_PICTURE, name="page.jpg-2.json"),
    )
    # The name that the sidecar of `late.jpg` would have, which comes when it is taken.
    yield "late.jpg.json", b"{}", Rejected(NOT_A_PICTURE)
    yield (
        "drawing.svg",
        (
            b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>'
            b'<svg xmlns="http://www.w3.org/2000/svg"><text>&e;</text></svg>'
        ),
        Rejected(NOT_A_PICTURE),
    )
    yield "paper.pdf", saved(COFFEE, "PDF"), Rejected(NOT_A_PICTURE)
    yield "script.eps", saved(COFFEE, "EPS"), Rejected(NOT_A_PICTURE)
    yield "script.jpg", b"%!PS\n(pwned) (w) file closefile\n", Rejected(NOT_A_PICTURE)
    yield "photos.zip", zipped(), Rejected(NOT_A_PICTURE)
    yield "noise.jpg", b"\1" + random.Random(2).randbytes(50_000), Rejected(NOT_A_PICTURE)
    yield (
        "noise-behind-magic.jpg",
        b"\xff\xd8\xff" + random.Random(3).randbytes(50_000),
        Rejected(TOO_EARLY, "incomplete"),
    )
    yield "empty.jpg", b"", Rejected("is empty")
    yield "zeros.jpg", bytes(50_000), Rejected(NOT_A_PICTURE)


def cut() -> Iterator[tuple[str, bytes, Outcome]]:
    """Yield pictures that end too early, a JPEG at a dozen lengths."""
    incomplete = Rejected(TOO_EARLY, "incomplete")
    size = len(JPEG)
    for length in (1, 2, 3, 20, 170, 400, 620, 700, size // 2, size - 200, size - 2, size - 1):
        yield f"cut-{length}.jpg", JPEG[:length], incomplete
    for format in ("PNG", "TIFF", "WEBP", "BMP", "GIF", "AVIF"):
        whole = saved(COFFEE, format)
        yield f"cut.{format.lower()}", whole[: len(whole) * 3 // 4], incomplete


def test_every_hostile_picture_ends_as_it_should(studio: Studio) -> None:
    """Each is painted or rejected with the reason, by one process, and the last one is painted."""
    late: list[tuple[str, bytes, Outcome]] = [
        ("late.jpg", b"no picture", Rejected(NOT_A_PICTURE, name="late-2.jpg")),
        ("z-good.jpg", JPEG, Painted()),
    ]
    cases = [*bombs(), *odd(), *damaged(), *cut(), *late]
    assert len({name for name, _, _ in cases}) == len(cases)
    inbox = studio.folder / "inbox"
    inbox.mkdir()
    for name, data, _ in cases[: -len(late)]:
        (inbox / name).write_bytes(data)
    with Watchman(studio, "outbox"), studio.running() as daemon:
        daemon.wait_for("input.awaited")
        for name, data, _ in late:
            elsewhere = studio.folder / name
            elsewhere.write_bytes(data)
            elsewhere.rename(inbox / name)
        daemon.wait_until(lambda: studio.files("inbox") == [])
        assert daemon.process.poll() is None
        events = [json.loads(line) for line in daemon.log.read_text().splitlines()]

    ends = dict(ends_of(studio))
    problems = {
        name: problem
        for name, data, outcome in cases
        if (problem := differs(studio, name, data, outcome, ends.pop(name, None)))
    }
    assert problems == {}
    assert ends == {}
    painted = [name for name, _, outcome in cases if isinstance(outcome, Painted)]
    assert studio.files("archive") == sorted(f"swirls/{name}" for name in painted)
    assert len(studio.files("outbox")) == 2 * len(painted)
    assert len(studio.files("rejected")) == 2 * (len(cases) - len(painted))
    names = {event["event"] for event in events}
    assert not names & {"job.crashed", "job.failed", "intake.crashed", "queue.paused"}
    assert len([event for event in events if event["event"] == "daemon.started"]) == 1


def ends_of(studio: Studio) -> Iterator[tuple[str, tuple[Path, dict[str, Any]]]]:
    """Yield for each input where it ended, and its sidecar."""
    for root in ("outbox", "rejected"):
        for path in (studio.folder / root / "swirls").glob("*.json"):
            facts = json.loads(path.read_bytes())
            if isinstance(facts.get("input"), dict):
                yield facts["input"]["path"], (path.with_suffix(""), facts)


def differs(
    studio: Studio, name: str, data: bytes, outcome: Outcome, end: tuple[Path, Any] | None
) -> str | None:
    """Return in what a case ended otherwise than it should, if in anything."""
    if end is None:
        return "has no sidecar"
    path, facts = end
    root = "outbox" if isinstance(outcome, Painted) else "rejected"
    if path != studio.folder / root / "swirls" / (outcome.name or name):
        return f"came out as {path}: {facts['rejected']}"
    if facts["input"]["sha256"] != hashlib.sha256(data).hexdigest():
        return f"its sidecar is about {facts['input']}"
    if isinstance(outcome, Rejected):
        told = facts["rejected"]
        if path.read_bytes() != data:
            return "it is not what was dropped"
        agrees = told["failure"] == outcome.failure and outcome.word in told["reason"]
        return None if agrees else f"was rejected because {told}"
    if (studio.folder / "archive" / "swirls" / name).read_bytes() != data:
        return "its original is not what was dropped"
    with Image.open(path) as picture:
        picture.load()
    degraded = facts["degraded"]
    if len(degraded) != len(outcome.degraded) or not all(
        found["kind"] == kind and part in found["message"]
        for found, (kind, part) in zip(degraded, outcome.degraded, strict=True)
    ):
        return f"is degraded: {degraded}"
    told = {key: facts["input"][key] for key, _ in outcome.facts}
    return None if told == dict(outcome.facts) else f"was read as {told}"


# FOUND, by fuzzing and by looking for what takes long: each of the following was a hole when
# it was written.


def damaged_fax() -> bytes:
    """Return a TIFF whose rows libtiff complains about, each in a line of its own."""
    rows = COFFEE.resize((192, 144)).convert("1")
    whole = bytearray(saved(rows, "TIFF", compression="group4"))
    for position in range(100, 700, 40):
        whole[position] ^= 0xFF
    return bytes(whole)


def test_a_library_that_complains_does_not_spoil_the_log(studio: Studio) -> None:
    """The log stays one JSON object for each line, whatever libtiff has to say about a file."""
    inbox = studio.folder / "inbox"
    inbox.mkdir()
    (inbox / "fax.tif").write_bytes(damaged_fax())
    with studio.running() as daemon:
        daemon.wait_until(lambda: studio.files("inbox") == [])
    wrong = []
    for line in daemon.log.read_text().splitlines():
        try:
            json.loads(line)
        except ValueError:
            wrong.append(line)
    assert wrong == []


def test_hundreds_of_thousands_of_segments_do_not_hold_up_others(studio: Studio) -> None:
    """Seven megabytes of tiny EXIF segments cost seconds, as their size does, not a minute."""
    inbox = studio.folder / "inbox"
    inbox.mkdir()
    segments = segment(0xE1, b"Exif\0\0MM\0*") * 500_000
    (inbox / "a-segments.jpg").write_bytes(with_segments(JPEG, segments))
    (inbox / "b-good.jpg").write_bytes(JPEG)
    with studio.running() as daemon:
        daemon.wait_for("job.claimed")
        daemon.wait_until(
            lambda: (studio.folder / "outbox/swirls/b-good.jpg.json").exists(), seconds=15
        )


def test_thousands_of_scans_do_not_hold_up_others(studio: Studio) -> None:
    """A JPEG of 300 kB with twenty thousand passes over all its pixels does not take minutes."""
    inbox = studio.folder / "inbox"
    inbox.mkdir()
    whole = saved(Image.new("L", (2000, 2000), "gray"), "JPEG", progressive=True)
    scan = whole[whole.rindex(b"\xff\xda") : -2]
    assert len(scan) < 20
    (inbox / "a-scans.jpg").write_bytes(whole[:-2] + scan * 20_000 + whole[-2:])
    (inbox / "b-good.jpg").write_bytes(JPEG)
    with studio.running() as daemon:
        daemon.wait_for("job.claimed")
        daemon.wait_until(
            lambda: (studio.folder / "outbox/swirls/b-good.jpg.json").exists(), seconds=15
        )
