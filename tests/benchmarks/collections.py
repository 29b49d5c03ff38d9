"""Decodes all pictures of a folder, and compares them with what other programs make of them.

    python -m tests.benchmarks.collections FOLDER...

prints a table of the folders, the reasons of all rejections, and each file on which all other
programs that open it (Pillow, ImageMagick, libvips) disagree with styled in size or colour. It is
no part of the test suite: the pictures are other projects' and stay outside this one.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

Thumbnail = NDArray[np.float32]

EDGE = 24
"""Pictures are compared after they were scaled to this many pixels in each direction."""

FAR = 4 / 255
"""A greater mean difference is a disagreement: JPEG decoders and scaling differ by less."""

SUFFIXES = re.compile(
    r"\.(jpe?g|jpe|jfif|png|apng|tiff?|webp|hei[cf]|hif|avif|gif|bmp|dib|dng|nef|nrw|cr[23w]|arw|sr2"
    r"|orf|rw2|raf|pef|jxl|insp|mpo|x3f|srw|3fr|iiq|mrw|erf|dcr|kdc|mef|mos|rwl|gpr|btf|tf8)$",
    re.IGNORECASE,
)


class Seen(NamedTuple):
    """What one program makes of a file: size, colours (EDGE x EDGE x 3), and its own remarks."""

    size: tuple[int, int]
    colors: Thumbnail
    notes: tuple[str, ...] = ()


class Finding(NamedTuple):
    """One file: painted if `reason` is empty; `disagreement` names kind and programs.

    `space` is the colour space that the photo was converted from: other programs may ignore it.
    """

    path: str
    format: str
    reason: str
    notes: tuple[str, ...]
    openers: tuple[str, ...]
    disagreement: str
    space: str = ""


def main() -> None:
    """Compare all pictures of the folders that are given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--jobs", type=int, default=2)
    folders: list[Path] = parser.parse_args().folders
    all_findings: list[Finding] = []
    with ProcessPoolExecutor(parser.parse_args().jobs, mp_context=get_context("spawn")) as pool:
        print(f"{'collection':42} files painted rejected disagreements silent")
        for folder in folders:
            paths = sorted(p for p in folder.rglob("*") if p.is_file() and SUFFIXES.search(p.name))
            findings = list(pool.map(examine, map(str, paths), chunksize=4))
            all_findings += findings
            painted = [f for f in findings if not f.reason]
            differing = [f for f in painted if f.disagreement]
            silent = [f for f in differing if not f.notes and not f.space]
            print(
                f"{folder.name:42}{len(findings):6}{len(painted):8}"
                f"{len(findings) - len(painted):9}{len(differing):14}{len(silent):7}",
                flush=True,
            )
    print_details(all_findings)


def print_details(findings: list[Finding]) -> None:
    """Print rejections by reason, refused files that two others open, and disagreements."""
    reasons = Counter(re.sub(r"\d+", "N", f.reason) for f in findings if f.reason)
    print("\nrejected, by reason")
    for reason, count in reasons.most_common():
        print(f"{count:6}  {reason}")
    print("\nrejected, though two other programs open it")
    for finding in findings:
        if finding.reason and len(finding.openers) >= 2:
            print(f"  {finding.path}: {finding.reason} ({', '.join(finding.openers)})")
    print("\ndisagreements of all other programs")
    for finding in findings:
        if finding.disagreement:
            said = "; ".join((*finding.notes, *([f"from {finding.space}"] * bool(finding.space))))
            print(f"  {finding.path}: {finding.disagreement}; {said or 'SILENT'}")


def examine(name: str) -> Finding:
    """Decode one file with styled and with the other programs."""
    from styled.errors import StyledError
    from styled.photos import decode_photo
    from styled.photos.formats import format_of

    data = Path(name).read_bytes()
    format = format_of(data) or "?"
    try:
        photo = decode_photo(data, name="it")
    except StyledError as error:
        openers = tuple(program for program, seen in others(name, data) if seen is not None)
        return Finding(name, format, error.message, (), openers, "")
    own = Seen((photo.width, photo.height), scaled(photo.image))
    notes = tuple(note.message for note in photo.degraded)
    seen = {program: result for program, result in others(name, data) if result is not None}
    differences = [difference(own, other, program) for program, other in seen.items()]
    agrees = not differences or any(text == "" for text in differences)
    disagreement = "" if agrees else ", ".join(differences)
    return Finding(name, format, "", notes, tuple(seen), disagreement, photo.icc or "")


def difference(own: Seen, other: Seen, program: str) -> str:
    """Return in what two programs disagree, "" if in nothing."""
    if own.size != other.size:
        return f"size {own.size} against {other.size} ({program})"
    distance = float(np.abs(own.colors - other.colors).mean())
    return f"colours by {distance * 255:.0f}/255 ({program})" if distance > FAR else ""


def scaled(image: Image.Image) -> Thumbnail:
    """Return an image in `EDGE` x `EDGE` pixels, 0..1."""
    small = image.convert("RGB").resize((EDGE, EDGE), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32) / np.float32(255)


def others(name: str, data: bytes) -> Iterator[tuple[str, Seen | None]]:
    """Return what the other programs make of a file, None for those that do not open it."""
    for program, see in (("Pillow", by_pillow), ("libvips", by_vips), ("ImageMagick", by_magick)):
        try:
            yield program, see(name, data)
        except Exception:  # noqa: BLE001  # whatever they raise: they do not open it
            yield program, None


def by_pillow(_: str, data: bytes) -> Seen:
    """Open a file with Pillow, apply profile and orientation, and place it on white."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image: Image.Image = Image.open(BytesIO(data))
        image.load()
        icc = image.info.get("icc_profile")
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith(("I", "F")):
            raise ValueError("Pillow does not scale these")
        alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
        if icc and image.mode in ("RGB", "CMYK", "L"):
            srgb = ImageCms.createProfile("sRGB")
            profile = ImageCms.ImageCmsProfile(BytesIO(icc))
            converted = ImageCms.profileToProfile(
                image, profile, srgb, renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
                outputMode="RGB", flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
            )  # fmt: skip
            assert converted is not None
            image = converted
    if alpha is not None and alpha.getextrema() != (255, 255):
        raise ValueError("colours of transparent pixels are not compared")
    return Seen(image.size, scaled(image))


def by_vips(_: str, data: bytes) -> Seen:
    """Open a file with libvips, apply profile and orientation."""
    import pyvips

    from styled.photos import DEFAULT_MAX_PIXELS

    image = pyvips.Image.new_from_buffer(data, "", fail_on="error")
    if image.width * image.height > DEFAULT_MAX_PIXELS:
        raise ValueError("a bomb")
    image = image.autorot()
    if image.hasalpha() and image.extract_band(image.bands - 1).min() < 255:
        raise ValueError("colours of transparent pixels are not compared")
    if "icc-profile-data" in image.get_fields():
        image = image.icc_transform("srgb", intent="relative", black_point_compensation=True)
    image = image.colourspace("srgb")
    if image.hasalpha():
        image = image.extract_band(0, n=image.bands - 1)
    pixels = image.numpy()
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    return Seen((image.width, image.height), scaled(Image.fromarray(pixels)))


def by_magick(name: str, _: bytes) -> Seen:
    """Open a file with ImageMagick's `convert`; the first frame, upright, without its profile."""
    done = subprocess.run(
        ["convert", f"{name}[0]", "-auto-orient", "-depth", "8", "-colorspace", "sRGB",
         "-format", "%w %h %[opaque]\n", "-write", "info:-", "-alpha", "off",
         "-scale", f"{EDGE}x{EDGE}!", "rgb:-"],
        capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    head, _, pixels = done.stdout.partition(b"\n")
    width, height, opaque = head.decode().split()
    if opaque.lower() != "true":
        raise ValueError("colours of transparent pixels are not compared")
    if len(pixels) != EDGE * EDGE * 3:
        raise ValueError("no pixels")
    colors = np.frombuffer(pixels, np.uint8).reshape(EDGE, EDGE, 3).astype(np.float32) / np.float32(
        255
    )
    return Seen((int(width), int(height)), colors)


if __name__ == "__main__":
    main()
