"""Fuzzing: decodes damaged images for a given time. Not collected by pytest.

    python -m tests.faults.fuzz_intake --seconds 600 --seed 1 --findings /tmp/findings

Decoding any file must give a photo, `InputRejected` or `InputIncomplete`, and a painting of a photo
can always be saved. A child process does the decoding. It saves each input before it decodes it, so
that crashes, hangs and excessive memory use are found, too. The exit code is 1 if anything was
found.
"""

from __future__ import annotations

import argparse
import faulthandler
import hashlib
import json
import multiprocessing
import os
import random
import resource
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import skimage.data
from PIL import Image, ImageCms

from styled import photos
from styled.codec.prepare import decode, prepare
from styled.codec.source_files import read_source_files
from styled.config import load_config
from styled.errors import InputIncomplete, InputRejected
from styled.photos.color import SRGB_PROFILE
from styled.photos.formats import format_of
from styled.photos.output_image import OutputImage
from styled.photos.png import save_png
from styled.photos.tiff import save_tiff

MAX_PIXELS = 2_000_000
SLOW_SECONDS = 5.0
HUNG_SECONDS = 60.0
"""The child is killed after this time in one call."""

HUNGRY_BYTES = 400 * 1024**2
"""Limit on the growth of peak memory in one call; `MAX_PIXELS` need far less."""

LEAK_BYTES = 300 * 1024**2
PAINTED = (40, 34)
"""Width and height of the paintings that are saved, in pixels."""

FORMATS = ("jpeg", "png", "tiff", "webp", "bmp", "gif")
EXPORT_OPTIONS = (
    photos.ExportOptions(),
    photos.ExportOptions(metadata="strip", bits=16),
    photos.ExportOptions(color="input", grayscale="keep"),
    photos.ExportOptions(color="input", bits=16),
)

FILE_EVERY, PREPARE_EVERY, CHECK_MEMORY_EVERY = 20, 100, 5000

BOUNDARY_VALUES = (0, 1, 2, 7, 8, 31, 32, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**24,
           2**31 - 1, 2**31, 2**32 - 8, 2**32 - 1)  # fmt: skip
INTEGER_FORMATS = ("<H", ">H", "<I", ">I")

Seeds = list[bytes]


def valid_pictures() -> Seeds:
    """Return small images in all formats and modes that can be decoded."""
    coffee = skimage.data.coffee()  # type: ignore[no-untyped-call]  # it has no types
    rgb = Image.fromarray(coffee).resize((56, 48))
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "A camera"
    exif.get_ifd(0x8769)[0x9003] = "2026:01:01 00:00:00"
    deep = Image.frombytes("I;16", (56, 48), rgb.convert("RGB").tobytes()[: 56 * 48 * 2])
    frames = [rgb.rotate(angle) for angle in (9, 18)]
    animated: dict[str, Any] = {"save_all": True, "append_images": frames}
    both: dict[str, Any] = {"icc_profile": icc, "exif": exif}
    ways: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (rgb, "JPEG", {}),
        (rgb, "JPEG", {"progressive": True, **both}),
        (rgb.convert("L"), "JPEG", {"comment": b"x" * 200}),
        (rgb.convert("CMYK"), "JPEG", {"icc_profile": icc}),
        (rgb, "MPO", animated),
        (rgb, "PNG", both),
        (rgb.convert("1"), "PNG", {}),
        (rgb.convert("LA"), "PNG", {"icc_profile": icc}),
        (rgb.quantize(16), "PNG", {"transparency": b"\0\x80\xff"}),
        (deep, "PNG", {}),
        (rgb, "PNG", animated),
        (rgb, "TIFF", both),
        (rgb.convert("1"), "TIFF", {"compression": "group4"}),
        (rgb.convert("1"), "TIFF", {"compression": "tiff_ccitt"}),
        (rgb, "TIFF", {"compression": "tiff_lzw", "tiffinfo": {317: 2}}),
        (rgb, "TIFF", {"compression": "tiff_adobe_deflate", "big_tiff": True}),
        (rgb, "TIFF", {"compression": "packbits"}),
        (rgb.convert("YCbCr"), "TIFF", {"compression": "jpeg"}),
        (rgb.convert("LAB"), "TIFF", {}),
        (rgb.convert("F"), "TIFF", {}),
        (rgb.convert("I"), "TIFF", {}),
        (deep, "TIFF", {"compression": "tiff_lzw"}),
        (rgb.convert("CMYK"), "TIFF", {"compression": "tiff_deflate"}),
        (rgb, "TIFF", animated),
        (rgb, "WEBP", both),
        (rgb.convert("RGBA"), "WEBP", {"lossless": True}),
        (rgb, "WEBP", animated),
        (rgb, "AVIF", both),
        (rgb.convert("RGBA"), "AVIF", {}),
        (rgb, "AVIF", animated),
        (rgb, "BMP", {}),
        (rgb.quantize(200), "BMP", {}),
        (rgb.convert("1"), "BMP", {}),
        (rgb, "GIF", {}),
        (rgb.quantize(16), "GIF", {"transparency": 3, "interlace": 1}),
        (rgb, "GIF", animated),
    ]
    pictures = []
    for image, name, options in ways:
        file = BytesIO()
        # Copies of the image and of each frame: saving as JPEG modifies the image object.
        if "append_images" in options:
            options = {**options, "append_images": [frame.copy() for frame in frames]}
        image.copy().save(file, name, **options)
        pictures.append(file.getvalue())
    pictures.append(_run_length_bitmap())
    pictures += _deep_pictures(coffee)
    for heif in (rgb, rgb.convert("RGBA")):
        file = BytesIO()
        pillow_heif.from_pillow(heif).save(file, exif=exif.tobytes(), xmp=b"<x/>")
        pictures.append(file.getvalue())
    return pictures


def _deep_pictures(coffee: np.ndarray) -> Seeds:
    """Return 16-bit images, which Pillow cannot write: with alpha, in grey, with a profile."""
    levels = np.dstack([coffee[:48, :56], coffee[:48, 56:112, :1]]).astype(np.uint16) * 251
    kinds = {"L": levels[..., :1], "LA": levels[..., 2:], "RGB": levels[..., :3], "RGBA": levels}
    files = [save_png(OutputImage(each, mode, SRGB_PROFILE)) for mode, each in kinds.items()]
    return [*files, *(save_tiff(OutputImage(kinds[mode], mode)) for mode in ("L", "RGB", "RGBA"))]


def _run_length_bitmap() -> bytes:
    rows = b"\x38\x05\0\0" * 48 + b"\0\1"  # 56 pixels of colour 5, end of line; end
    palette = bytes(4 * 256)
    header = struct.pack("<IiiHHIIiiII", 40, 56, 48, 1, 8, 1, len(rows), 0, 0, 256, 0)
    start = 14 + len(header) + len(palette)
    return struct.pack("<2sIII", b"BM", start + len(rows), 0, start) + header + palette + rows


class Mutator:
    """Damages images; the same seed gives the same damage."""

    def __init__(self, seeds: Seeds, chance: random.Random) -> None:
        """Damage one of `seeds` at a time, chosen with the random generator `chance`."""
        self._seeds = seeds
        self._chance = chance
        self._ways: tuple[Callable[[bytearray], None], ...] = (
            self._flip, self._flip, self._number, self._number, self._cut, self._splice,
            self._block_length, self._block_twice, self._block_lost, self._insert, self._zeros,
            self._payload, self._field, self._field,
        )  # fmt: skip

    def next(self) -> bytes:
        """Return the next damaged image."""
        chance = self._chance
        data = bytearray(chance.choice(self._seeds))
        for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
            chance.choice(self._ways)(data)
        if data[:4] == b"\x89PNG" and chance.random() < 0.8:
            _fix_checksums(data)
        return bytes(data)

    def _at(self, data: bytearray) -> int:
        # Most structure is near the start.
        reach = self._chance.choice((32, 200, 900, len(data)))
        return self._chance.randrange(max(1, min(reach, len(data))))

    def _flip(self, data: bytearray) -> None:
        for _ in range(self._chance.choice((1, 2, 8))):
            if data:
                data[self._at(data)] = self._chance.randrange(256)

    def _number(self, data: bytearray) -> None:
        form = self._chance.choice(INTEGER_FORMATS)
        size = struct.calcsize(form)
        at = self._at(data)
        value = self._chance.choice(BOUNDARY_VALUES) & ((1 << 8 * size) - 1)
        data[at : at + size] = struct.pack(form, value)

    def _cut(self, data: bytearray) -> None:
        del data[self._chance.randrange(len(data) + 1) :]

    def _splice(self, data: bytearray) -> None:
        other = self._chance.choice(self._seeds)
        begin = self._at(bytearray(other))
        at = self._at(data)
        data[at : at + self._chance.choice((0, 4, 100, len(data)))] = other[begin:]

    def _insert(self, data: bytearray) -> None:
        at = self._at(data)
        data[at:at] = self._chance.randbytes(self._chance.choice((1, 4, 60, 3000)))

    def _zeros(self, data: bytearray) -> None:
        at = self._at(data)
        length = min(self._chance.choice((4, 40, 4000)), len(data) - at)
        data[at : at + max(0, length)] = bytes(max(0, length))

    def _block_length(self, data: bytearray) -> None:
        if blocks := blocks_of(bytes(data)):
            at, form, _ = self._chance.choice(blocks)
            (length,) = struct.unpack_from(form, data, at)
            wrong = self._chance.choice((length - 1, length + 1, length + 12, *BOUNDARY_VALUES))
            mask = (1 << 8 * struct.calcsize(form)) - 1
            struct.pack_into(form, data, at, wrong & mask)

    def _block_twice(self, data: bytearray) -> None:
        if blocks := blocks_of(bytes(data)):
            at, _, end = self._chance.choice(blocks)
            data[at:at] = data[at:end] * self._chance.choice((1, 2, 50))

    def _block_lost(self, data: bytearray) -> None:
        if blocks := blocks_of(bytes(data)):
            at, _, end = self._chance.choice(blocks)
            del data[at:end]

    def _payload(self, data: bytearray) -> None:
        """Insert a damaged colour profile or EXIF data, with valid lengths and checksums."""
        payload = bytearray(self._chance.choice(_PAYLOADS))
        for _ in range(self._chance.choice((1, 3, 9))):
            self._chance.choice((self._flip, self._number, self._cut))(payload)
            payload = payload or bytearray(b"\0")
        payload_bytes = bytes(payload)
        is_profile = payload_bytes[36:40] == b"acsp"
        if data[:2] == b"\xff\xd8":
            marker, before = (
                (b"\xff\xe2", b"ICC_PROFILE\0\1\1") if is_profile else (b"\xff\xe1", b"Exif\0\0")
            )
            payload_bytes = before + payload_bytes[:65000]
            data[2:2] = marker + struct.pack(">H", len(payload_bytes) + 2) + payload_bytes
        elif data[:4] == b"\x89PNG":
            kind = b"iCCP" if is_profile else b"eXIf"
            content = b"p\0\0" + zlib.compress(payload_bytes) if is_profile else payload_bytes
            data[33:33] = struct.pack(">I", len(content)) + kind + content + bytes(4)
            _fix_checksums(data)

    def _field(self, data: bytearray) -> None:
        """Change one field of a TIFF directory: its tag, type, count or value."""
        if bytes(data[:4]) not in (b"II*\0", b"MM\0*") or len(data) < 10:
            return
        order = "<" if data[:2] == b"II" else ">"
        (directory,) = struct.unpack_from(order + "I", data, 4)
        if directory + 14 > len(data):
            return
        (entries,) = struct.unpack_from(order + "H", data, directory)
        at = directory + 2 + 12 * self._chance.randrange(max(1, entries))
        if at + 12 <= len(data):
            where, form = self._chance.choice(((0, "H"), (2, "H"), (4, "I"), (8, "I"), (8, "H")))
            wrong = self._chance.choice(
                (*BOUNDARY_VALUES, self._chance.randrange(20), self._chance.randrange(256, 340))
            )
            mask = 0xFFFF if form == "H" else 0xFFFFFFFF
            struct.pack_into(order + form, data, at + where, wrong & mask)


def _payloads() -> list[bytes]:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x8825] = 3, "A camera", {1: "N", 2: (1.0, 2.0, 3.0)}
    profiles = [
        ImageCms.ImageCmsProfile(ImageCms.createProfile(space)).tobytes()
        for space in ("sRGB", "LAB", "XYZ")
    ]
    return [*profiles, exif.tobytes()[6:]]


_PAYLOADS = _payloads()


def blocks_of(data: bytes) -> list[tuple[int, str, int]]:
    """Return the offset and struct format of the length of each block, and the block's end."""
    blocks: list[tuple[int, str, int]] = []
    name = format_of(data)
    starts = {"png": 8, "jpeg": 2, "webp": 12, "avif": 0, "heic": 0, "gif": 13}
    if name not in starts:
        return blocks
    position = starts[name]
    while position + 12 < len(data) and len(blocks) < 500:
        if name == "png":
            at, form, end = position, ">I", position + 12 + _number(data, ">I", position)
        elif name == "jpeg":
            at, form = position + 2, ">H"
            end = position + 2 + _number(data, form, at)
        elif name == "webp":
            at, form = position + 4, "<I"
            end = position + 8 + _number(data, form, at)
        elif name in ("avif", "heic"):
            # Boxes are nested: the ones below only contain other boxes.
            at, form, end = position, ">I", position + _number(data, ">I", position)
            inner = {b"meta": 12, b"iprp": 8, b"ipco": 8, b"moov": 8, b"trak": 8, b"mdia": 8,
                     b"minf": 8, b"stbl": 8}.get(data[position + 4 : position + 8])  # fmt: skip
            if inner:
                blocks.append((at, form, end))
                position += inner
                continue
        else:
            at, form, end = position, "<B", position + 1 + data[position]
        if end <= position:
            break
        blocks.append((at, form, min(end, len(data))))
        position = end
    return blocks


def _number(data: bytes | bytearray, form: str, at: int) -> int:
    number: int = struct.unpack_from(form, data, at)[0]
    return number


def _fix_checksums(data: bytearray) -> None:
    position = 8
    while position + 12 <= len(data):
        length = _number(data, ">I", position)
        end = position + 8 + length
        if end + 4 > len(data):
            return
        struct.pack_into(">I", data, end, zlib.crc32(data[position + 4 : end]))
        position = end + 4


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class _Child:
    """The fuzzing loop that runs in the child process."""

    def __init__(self, folder: Path, findings: Path, seed: str, deadline: float) -> None:
        self._folder, self._findings, self._deadline = folder, findings, deadline
        self._mutator = Mutator(valid_pictures(), random.Random(seed))
        self._photo = folder / "photo"
        config = folder / "config.yaml"
        Image.new("RGB", (64, 64), "teal").save(folder / "style.png")
        config.write_text(
            "styles: {s: {image: style.png, recipe: udacity, overrides: {size: {long_edge: 48}}}}\n"
        )
        self._style = load_config(config).styles["s"]
        self._counts: dict[str, int] = {}
        self._settled: int | None = None

    def run(self) -> None:
        faulthandler.enable(open(self._folder / "crash.txt", "w"))  # noqa: SIM115  # to the end
        with open(self._folder / "current", "wb", buffering=0) as current:
            number = 0
            while time.time() < self._deadline:
                data = self._mutator.next()
                current.seek(0)
                current.truncate()
                current.write(data)
                self._one(data, number)
                number += 1
                if number % CHECK_MEMORY_EVERY == 0:
                    self._check_memory(number)
        self._check_memory(number)

    def _one(self, data: bytes, number: int) -> None:
        peak, start = _peak_bytes(), time.monotonic()
        try:
            self._read(data, number)
            outcome = f"{format_of(data)} photo"
        except (InputRejected, InputIncomplete) as error:
            outcome = f"{format_of(data)} {type(error).__name__}"
        except Exception as error:  # noqa: BLE001  # unexpected exceptions are findings
            outcome = f"{format_of(data)} {type(error).__name__}"
            save_finding(self._findings, data, f"{type(error).__name__}: {error}")
        self._counts[outcome] = self._counts.get(outcome, 0) + 1
        seconds = time.monotonic() - start
        if seconds > SLOW_SECONDS:
            save_finding(self._findings, data, f"took {seconds:.1f} s")
        grown = _peak_bytes() - peak
        if grown > HUNGRY_BYTES and number > 0:
            save_finding(self._findings, data, f"needed {grown / 1e6:.0f} MB")

    def _read(self, data: bytes, number: int) -> None:
        if number % FILE_EVERY:
            photo = photos.decode_photo(data, max_pixels=MAX_PIXELS)
        else:
            self._photo.write_bytes(data)
            if number % PREPARE_EVERY:
                photo = decode(photos.read_bytes(self._photo), max_pixels=MAX_PIXELS).photo
            else:
                inputs = read_source_files(self._photo, self._style)
                photo = prepare(inputs, self._style.recipe, max_pixels=MAX_PIXELS).input_file.photo
        if photo.image.mode != "RGB" or photo.image.size != (photo.width, photo.height):
            raise AssertionError(f"a photo of mode {photo.image.mode}, size {photo.image.size}")
        if photo.width * photo.height > MAX_PIXELS:
            raise AssertionError(f"a photo of {photo.image.size}")
        if photo.alpha is not None and photo.alpha.size != photo.image.size:
            raise AssertionError(f"opacity of {photo.alpha.size}, colours of {photo.image.size}")
        channels = 3 if photo.alpha is None else 4
        if photo.deep is not None and photo.deep.shape != (photo.height, photo.width, channels):
            raise AssertionError(f"16-bit levels {photo.deep.shape}, {channels} channels wanted")
        self._finish(photo, number)

    def _finish(self, photo: photos.Photo, number: int) -> None:
        """Save a small painting of a decoded photo, which must always be possible."""
        format = FORMATS[number % len(FORMATS)]
        options = EXPORT_OPTIONS[number // len(FORMATS) % len(EXPORT_OPTIONS)]
        painting = photo.tensor(*PAINTED)[:, :3]
        try:
            exported = photos.export_image(painting, photo, format, options)
        except (InputRejected, InputIncomplete) as error:
            raise AssertionError(f"finishing as {format} refused: {error}") from error
        with Image.open(BytesIO(exported.data)) as image:
            image.load()
            if image.size != PAINTED:
                raise AssertionError(f"a {format} of {image.size}")

    def _check_memory(self, number: int) -> None:
        resident = _resident_bytes()
        if self._settled is None:
            self._settled = resident
        elif resident > self._settled + LEAK_BYTES:
            save_finding(self._findings, b"", f"grew to {resident / 1e6:.0f} MB by {number}")
            self._settled = resident
        summary = {"count": number, "resident_mb": resident // 10**6, "outcomes": self._counts}
        (self._folder / "facts.json").write_text(json.dumps(summary))


def save_finding(findings: Path, data: bytes, what: str) -> None:
    """Save an input that caused a problem, and a description of the problem."""
    findings.mkdir(parents=True, exist_ok=True)
    stem = hashlib.sha256(data).hexdigest()[:12]
    (findings / f"{stem}.bin").write_bytes(data)
    (findings / f"{stem}.txt").write_text(what + "\n")


def _run_child(folder: Path, findings: Path, seed: str, deadline: float) -> None:
    # Excessive memory use must not take down the machine.
    resource.setrlimit(resource.RLIMIT_AS, (12 * 1024**3, 12 * 1024**3))
    with open(folder / "stderr", "wb") as stream:
        os.dup2(stream.fileno(), 2)
    _Child(folder, findings, seed, deadline).run()


def fuzz(seconds: float, seed: int, findings: Path) -> dict[str, Any]:
    """Fuzz for this time; return the number of executions and the count of each outcome."""
    context = multiprocessing.get_context("spawn")
    deadline = time.time() + seconds
    total, outcomes, deaths, resident, stderr_lines = 0, dict[str, int](), 0, 0, 0
    while time.time() < deadline - 3:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            current, summary_path = folder / "current", folder / "facts.json"
            child = context.Process(
                target=_run_child, args=(folder, findings, f"{seed}-{deaths}", deadline)
            )
            child.start()
            hung = False
            while child.is_alive():
                child.join(1.0)
                if current.exists() and time.time() - current.stat().st_mtime > HUNG_SECONDS:
                    hung = True
                    child.kill()
            if child.exitcode:
                deaths += 1
                if not current.exists():
                    raise RuntimeError("the child could not even begin")
                trace = "hung" if hung else (folder / "crash.txt").read_text()
                data = current.read_bytes()
                save_finding(findings, data, f"exit code {child.exitcode}\n{trace}")
            stderr_lines += (folder / "stderr").read_bytes().count(b"\n")
            if summary_path.exists():
                summary = json.loads(summary_path.read_text())
                total += summary["count"]
                resident = summary["resident_mb"]
                for key, count in summary["outcomes"].items():
                    outcomes[key] = outcomes.get(key, 0) + count
    return {
        "seed": seed, "executions": total, "deaths": deaths, "resident_mb": resident,
        "lines_on_stderr": stderr_lines, "outcomes": dict(sorted(outcomes.items())),
    }  # fmt: skip


def main() -> int:
    """Fuzz with the options of the command line; return the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--findings", type=Path, default=Path("/tmp/fuzz-intake"))
    args = parser.parse_args()
    summary = fuzz(args.seconds, args.seed, args.findings)
    reports = sorted(args.findings.glob("*.txt")) if args.findings.exists() else []
    summary["findings"] = {path.stem: path.read_text().splitlines()[0] for path in reports}
    sys.stdout.write(json.dumps(summary, indent=2) + "\n")
    return 1 if reports else 0


if __name__ == "__main__":
    sys.exit(main())
