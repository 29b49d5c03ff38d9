"""Decompression bombs, damaged and unusual images, and files that are no images."""

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
from tests.daemon_harness import DaemonHarness
from tests.faults.output_checker import OutputChecker

pytestmark = pytest.mark.timeout(400)

COFFEE = Image.fromarray(skimage.data.coffee()).resize((96, 72))  # type: ignore[no-untyped-call]

NOT_A_PICTURE = "is not a picture that styled can read"
TOO_EARLY = "ends too early"


@dataclass(frozen=True)
class Painted:
    """The expected outcome is a result.

    Attributes:
        degraded: The kind of each entry of the sidecar's `degraded`, and a part of its message.
        name: The name of the result; None if it is that of the input.
        input: Some keys of the sidecar's `input`, and their values.
    """

    degraded: tuple[tuple[Kind, str], ...] = ()
    name: str | None = None
    input: tuple[tuple[str, object], ...] = ()


@dataclass(frozen=True)
class Rejected:
    """The expected outcome is a rejection.

    Attributes:
        text: A part of the reason.
        failure: The kind of failure.
        name: The name of the rejected file; None if it is that of the input.
    """

    text: str
    failure: str = "input"
    name: str | None = None


Outcome = Painted | Rejected


def saved(image: Image.Image, format: str, **kwargs: Any) -> bytes:
    file = io.BytesIO()
    image.copy().save(file, format, **kwargs)
    return file.getvalue()


def segment(marker: int, content: bytes) -> bytes:
    """Return a JPEG segment."""
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def with_segments(jpeg: bytes, segments: bytes) -> bytes:
    """Return a JPEG with segments inserted at its beginning."""
    return jpeg[:2] + segments + jpeg[2:]


def chunk(kind: bytes, content: bytes) -> bytes:
    """Return a PNG chunk."""
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png(
    width: int, height: int, pixels: bytes, *before: bytes, depth: int = 8, colours: int = 2
) -> bytes:
    """Return a PNG with a size in its header, and compressed pixels that may not match it."""
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


def with_chunks(data: bytes, *chunks: bytes) -> bytes:
    """Return a PNG with chunks inserted after its header."""
    return data[:33] + b"".join(chunks) + data[33:]


def packed_zeros(count: int) -> bytes:
    """Return this many zero bytes, compressed."""
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
    """Return a TIFF whose first page has itself as its next page."""
    data = bytearray(saved(COFFEE, "TIFF"))
    (directory,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, directory)
    struct.pack_into("<I", data, directory + 2 + 12 * entries, directory)
    return bytes(data)


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
    """Return an sRGB profile with another name, at most as long as the original one."""
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
DAMAGED_EXIF = Painted((("metadata", "the EXIF data is damaged and was left out"),))
DAMAGED_PROFILE = Painted(
    (("color", "the colour profile is damaged and was ignored"),), input=(("icc", None),)
)


def bombs() -> Iterator[tuple[str, bytes, Outcome]]:
    """Yield images that are larger than they look, with their expected outcomes."""
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
    # The data after the last pixel is never decompressed.
    yield "more.png", png(96, 72, packed_zeros(128 * 1024**2)), Painted()
    yield (
        "text.png",
        with_chunks(
            saved(COFFEE, "PNG"), chunk(b"zTXt", b"Title\0\0" + packed_zeros(64 * 1024**2))
        ),
        Painted((("metadata", "a text chunk is damaged or too long and was left out"),)),
    )
    yield (
        "profile.png",
        with_chunks(saved(COFFEE, "PNG"), chunk(b"iCCP", b"name\0\0" + packed_zeros(64 * 1024**2))),
        DAMAGED_PROFILE,
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
    """Yield images of unusual kinds, with their expected outcomes."""
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
    yield (
        "turned.jpg",
        turned(),
        Painted(input=(("orientation", 6), ("width", 72), ("height", 96))),
    )
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
        (Painted(input=(("icc", "[2J evil"),))),
    )
    yield "garbage-behind.jpg", JPEG + random.Random(1).randbytes(50_000), Painted()
    yield "zip-behind.jpg", JPEG + zipped(), Painted()
    comments = segment(0xFE, b"\x1b[31m <script> %n" * 3000) * 300
    yield "comments.jpg", with_segments(JPEG, comments), Painted()
    yield (
        "png-inside.jpg",
        saved(COFFEE, "PNG"),
        Painted(name="png-inside.png", input=(("format", "png"),)),
    )
    yield (
        "jpeg-inside.tiff",
        JPEG,
        Painted(name="jpeg-inside.jpg", input=(("format", "jpeg"),)),
    )
    yield "shouting.JPEG", JPEG, Painted()


def damaged() -> Iterator[tuple[str, bytes, Outcome]]:
    """Yield files that can't be decoded, with their expected outcomes."""
    image_bytes = saved(COFFEE, "PNG")
    flipped = bytearray(image_bytes)
    flipped[len(image_bytes) // 2] ^= 0xFF
    yield "checksum.png", bytes(flipped), Rejected("is damaged: the checksum of its data")
    yield (
        "headless.jpg",
        JPEG[:2] + JPEG[JPEG.index(b"\xff\xda") :],
        Rejected("can't be decoded as JPEG"),
    )
    yield "page.jpg", b"<!DOCTYPE html><script>alert(1)</script>\n" * 9, Rejected(NOT_A_PICTURE)
    # The name that the sidecar of `late.jpg` would get; that photo comes after this file.
    yield "late.jpg.json", b"{}", Rejected(NOT_A_PICTURE)
    yield (
        "drawing.svg",
        (
            b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>'
            b'<svg xmlns="http://www.w3.org/2000/svg"><text>&e;</text></svg>'
        ),
        Rejected(NOT_A_PICTURE),
    )
    yield "paper.pdf", saved(COFFEE, "PDF"), Rejected("is a PDF document")
    yield "script.eps", saved(COFFEE, "EPS"), Rejected("is a PostScript document")
    yield "script.jpg", b"%!PS\n(pwned) (w) file closefile\n", Rejected("is a PostScript document")
    yield "photos.zip", zipped(), Rejected("is a ZIP archive")
    yield "noise.jpg", b"\1" + random.Random(2).randbytes(50_000), Rejected(NOT_A_PICTURE)
    yield (
        "noise-behind-magic.jpg",
        b"\xff\xd8\xff" + random.Random(3).randbytes(50_000),
        Rejected(TOO_EARLY, "incomplete"),
    )
    yield "empty.jpg", b"", Rejected("is empty")
    yield "zeros.jpg", bytes(50_000), Rejected(NOT_A_PICTURE)


def cut() -> Iterator[tuple[str, bytes, Outcome]]:
    """Yield truncated images, a JPEG at a dozen lengths, with their expected outcomes."""
    incomplete = Rejected(TOO_EARLY, "incomplete")
    size = len(JPEG)
    for length in (1, 2, 3, 20, 170, 400, 620, 700, size // 2, size - 200):
        yield f"cut-{length}.jpg", JPEG[:length], incomplete
    whole = Painted((("damaged", "the file ends too early, but all of the picture is there"),))
    for length in (size - 2, size - 1):  # the end marker
        yield f"cut-{length}.jpg", JPEG[:length], whole
    for format in ("PNG", "TIFF", "WEBP", "BMP", "GIF", "AVIF"):
        image_bytes = saved(COFFEE, format)
        yield f"cut.{format.lower()}", image_bytes[: len(image_bytes) * 3 // 4], incomplete


def test_every_hostile_picture_ends_as_it_should(harness: DaemonHarness) -> None:
    """Each file is painted or rejected as expected, all by one process."""
    late: list[tuple[str, bytes, Outcome]] = [
        ("late.jpg", b"no picture", Rejected(NOT_A_PICTURE, name="late-2.jpg")),
        # The name that the sidecar of `page.jpg` has, with JSON content.
        (
            "page.jpg.json",
            b'{"schema": 1, "job": {"id": "x"}}',
            Rejected(NOT_A_PICTURE, name="page.jpg-2.json"),
        ),
        ("z-good.jpg", JPEG, Painted()),
    ]
    cases = [*bombs(), *odd(), *damaged(), *cut(), *late]
    assert len({name for name, _, _ in cases}) == len(cases)
    settings = "settle_seconds: 0.2, truncated_grace_seconds: 2, rescan_seconds: 5"
    harness.configure(intake=f"{{{settings}, not_pictures: reject}}")
    inbox = harness.folder / "inbox"
    inbox.mkdir()
    for name, data, _ in cases[: -len(late)]:
        (inbox / name).write_bytes(data)
    with OutputChecker(harness, "outbox"), harness.running() as daemon:
        daemon.wait_for("input.incomplete")
        rejected = {"swirls/page.jpg.json", "swirls/late.jpg.json.json"}
        daemon.wait_until(lambda: rejected <= set(harness.files("rejected")))
        for name, data, _ in late:
            elsewhere = harness.folder / name
            elsewhere.write_bytes(data)
            elsewhere.rename(inbox / name)
        daemon.wait_until(lambda: harness.files("inbox") == [])
        assert daemon.process.poll() is None
        events = [json.loads(line) for line in daemon.log.read_text().splitlines()]

    ends = dict(ends_of(harness))
    problems = {
        name: problem
        for name, data, outcome in cases
        if (problem := differs(harness, name, data, outcome, ends.pop(name, None)))
    }
    assert problems == {}
    assert ends == {}
    painted = [name for name, _, outcome in cases if isinstance(outcome, Painted)]
    assert harness.files("archive") == sorted(f"swirls/{name}" for name in painted)
    assert len(harness.files("outbox")) == 2 * len(painted)
    assert len(harness.files("rejected")) == 2 * (len(cases) - len(painted))
    names = {event["event"] for event in events}
    assert not names & {
        "job.internal_error",
        "job.attempt_failed",
        "intake.internal_error",
        "queue.paused",
    }
    assert len([event for event in events if event["event"] == "daemon.started"]) == 1


def ends_of(harness: DaemonHarness) -> Iterator[tuple[str, tuple[Path, dict[str, Any]]]]:
    """Yield for each input the path of its result or rejected file, and its sidecar."""
    for root in ("outbox", "rejected"):
        for path in (harness.folder / root / "swirls").glob("*.json"):
            sidecar = json.loads(path.read_bytes())
            if isinstance(sidecar.get("input"), dict):
                yield sidecar["input"]["path"], (path.with_suffix(""), sidecar)


def differs(
    harness: DaemonHarness, name: str, data: bytes, outcome: Outcome, end: tuple[Path, Any] | None
) -> str | None:
    """Return a message if the outcome of a case is not the expected one, else None."""
    if end is None:
        return "has no sidecar"
    path, sidecar = end
    root = "outbox" if isinstance(outcome, Painted) else "rejected"
    if path != harness.folder / root / "swirls" / (outcome.name or name):
        return f"came out as {path}: {sidecar['rejected']}"
    if sidecar["input"]["sha256"] != hashlib.sha256(data).hexdigest():
        return f"its sidecar is about {sidecar['input']}"
    if isinstance(outcome, Rejected):
        actual = sidecar["rejected"]
        if path.read_bytes() != data:
            return "it is not what was dropped"
        agrees = actual["failure"] == outcome.failure and outcome.text in actual["reason"]
        return None if agrees else f"was rejected because {actual}"
    if (harness.folder / "archive" / "swirls" / name).read_bytes() != data:
        return "its original is not what was dropped"
    with Image.open(path) as picture:
        picture.load()
    degraded = sidecar["degraded"]
    if len(degraded) != len(outcome.degraded) or not all(
        entry["kind"] == kind and part in entry["message"]
        for entry, (kind, part) in zip(degraded, outcome.degraded, strict=True)
    ):
        return f"is degraded: {degraded}"
    actual = {key: sidecar["input"][key] for key, _ in outcome.input}
    return None if actual == dict(outcome.input) else f"was read as {actual}"


# Regression tests: each was a bug when it was written, found by fuzzing or by looking for slow
# files.


def damaged_fax() -> bytes:
    """Return a TIFF for which libtiff prints a warning for each damaged row."""
    rows = COFFEE.resize((192, 144)).convert("1")
    data = bytearray(saved(rows, "TIFF", compression="group4"))
    for position in range(100, 700, 40):
        data[position] ^= 0xFF
    return bytes(data)


def test_a_library_that_complains_does_not_spoil_the_log(harness: DaemonHarness) -> None:
    """Warnings that libtiff prints do not get into the log, which stays JSON lines."""
    inbox = harness.folder / "inbox"
    inbox.mkdir()
    (inbox / "fax.tif").write_bytes(damaged_fax())
    with harness.running() as daemon:
        daemon.wait_until(lambda: harness.files("inbox") == [])
    invalid_lines = []
    for line in daemon.log.read_text().splitlines():
        try:
            json.loads(line)
        except ValueError:
            invalid_lines.append(line)
    assert invalid_lines == []


def test_hundreds_of_thousands_of_segments_do_not_hold_up_others(harness: DaemonHarness) -> None:
    """A JPEG with 500,000 tiny EXIF segments (7 MB) takes seconds, not a minute."""
    inbox = harness.folder / "inbox"
    inbox.mkdir()
    segments = segment(0xE1, b"Exif\0\0MM\0*") * 500_000
    (inbox / "a-segments.jpg").write_bytes(with_segments(JPEG, segments))
    (inbox / "b-good.jpg").write_bytes(JPEG)
    with harness.running() as daemon:
        daemon.wait_for("job.claimed")
        daemon.wait_until(
            lambda: (harness.folder / "outbox/swirls/b-good.jpg.json").exists(), seconds=60
        )


def test_thousands_of_scans_do_not_hold_up_others(harness: DaemonHarness) -> None:
    """A JPEG of 300 kB with 20,000 progressive scans does not take minutes."""
    inbox = harness.folder / "inbox"
    inbox.mkdir()
    image_bytes = saved(Image.new("L", (2000, 2000), "gray"), "JPEG", progressive=True)
    scan = image_bytes[image_bytes.rindex(b"\xff\xda") : -2]
    assert len(scan) < 20
    (inbox / "a-scans.jpg").write_bytes(image_bytes[:-2] + scan * 20_000 + image_bytes[-2:])
    (inbox / "b-good.jpg").write_bytes(JPEG)
    with harness.running() as daemon:
        daemon.wait_for("job.claimed")
        daemon.wait_until(
            lambda: (harness.folder / "outbox/swirls/b-good.jpg.json").exists(), seconds=60
        )
