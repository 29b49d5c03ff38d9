"""EXIF data is kept byte for byte, in the photo's byte order, with MakerNotes where they were."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from styled.photos import ExportOptions, decode_photo, export_image
from styled.photos.exif import (
    MAKER_NOTE,
    ORIENTATION,
    Exif,
    number_field,
    read_exif,
    text_field,
    to_bytes,
)
from styled.photos.tiff_tags import ASCII, BYTE, LONG, SHORT, UNDEFINED, Field, TiffReader
from tests.photos.samples import astronaut, needs_exiftool, run, saved

FORMATS = ["jpeg", "png", "tiff", "webp", "heic"]


def jpeg_with(exif: bytes) -> bytes:
    """Return a JPEG with EXIF data, and without a JFIF header, as cameras write it."""
    data = saved(astronaut(), "JPEG")
    body = b"Exif\0\0" + exif
    segment = b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
    (jfif_bytes,) = struct.unpack_from(">H", data, 4)
    return data[:2] + segment + data[4 + jfif_bytes :]


def painted(data: bytes, format: str, edge: int = 48) -> bytes:
    """Return a painting of a photo, without a photo's pixels."""
    photo = decode_photo(data)
    return export_image(torch.rand(1, 3, 48, edge), photo, format, ExportOptions()).data


def exif_in(data: bytes) -> Exif:
    return decode_photo(data).metadata.exif


def canon_note(order: str, offset: int) -> bytes:
    """Return a MakerNote as Canon writes it: a directory whose offsets count from the header."""
    texts = {6: b"IMG:Test Camera JPEG\0", 7: b"Firmware Version 1.2.3\0", 9: b"Test Owner\0"}
    head = struct.pack(order + "H", len(texts))
    position = offset + 2 + 12 * len(texts) + 4
    entries, values = b"", b""
    for tag, text in texts.items():
        entries += struct.pack(order + "HHII", tag, 2, len(text), position + len(values))
        values += text
    return head + entries + bytes(4) + values


def with_canon_note(order: str, offset: int = 800) -> bytes:
    """Return EXIF data with a MakerNote at an offset, and a UserComment in UTF-16."""
    comment = "Sommer am See, Größe 3".encode("utf-16-le" if order == "<" else "utf-16-be")
    note = canon_note(order, offset)
    user_comment = b"UNICODE\0" + comment
    return to_bytes(
        Exif(
            order,
            {
                271: text_field("Canon"),
                272: text_field("Canon Test"),
                ORIENTATION: number_field(order, SHORT, 6),
            },
            {
                MAKER_NOTE: Field(UNDEFINED, len(note), note, offset),
                37510: Field(UNDEFINED, len(user_comment), user_comment),
                33434: Field(5, 1, struct.pack(order + "II", 10, 2500)),
            },
        )
    )


@needs_exiftool
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("order", ["<", ">"])
def test_another_program_reads_the_makernote_of_a_painting(
    order: str, format: str, tmp_path: Path
) -> None:
    """Its texts lie at offsets from the start of the EXIF data; so does the comment's encoding."""
    path = tmp_path / "painting"
    path.write_bytes(painted(jpeg_with(with_canon_note(order)), format))
    output = run(
        "exiftool", "-json", "-a", "-CanonImageType", "-CanonFirmwareVersion", "-OwnerName",
        "-UserComment", "-ExposureTime", "-Warning", path,
    )  # fmt: skip
    tags = json.loads(output)[0]
    del tags["SourceFile"]
    assert tags == {
        "CanonImageType": "IMG:Test Camera JPEG",
        "CanonFirmwareVersion": "Firmware Version 1.2.3",
        "OwnerName": "Test Owner",
        "UserComment": "Sommer am See, Größe 3",
        "ExposureTime": "1/250",
    }


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("format", FORMATS)
def test_bytes_order_and_place_stay(format: str, order: str) -> None:
    """The MakerNote of the painting has the bytes and the offset of the photo's."""
    before = exif_in(jpeg_with(with_canon_note(order)))
    after = exif_in(painted(jpeg_with(with_canon_note(order)), format))
    assert after.order == order
    assert after.photo[MAKER_NOTE] == before.photo[MAKER_NOTE]
    assert after.photo[37510].data == before.photo[37510].data


def test_what_a_makernote_refers_to_stays_in_its_place() -> None:
    """Many cameras write data outside of the MakerNote, and tell only in it where that is."""
    exif = with_canon_note("<")
    data = exif + bytes(500) + b"belongs to the camera" + bytes(90)
    blob = to_bytes(exif_in(painted(jpeg_with(data), "jpeg")))
    at = len(exif) + 500
    assert blob[at : at + 21] == b"belongs to the camera"


def test_a_makernote_without_room_is_left_out_and_reported() -> None:
    """A TIFF may have it megabytes away from its start."""
    exif = exif_in(jpeg_with(with_canon_note("<")))
    note = replace(exif.photo[MAKER_NOTE], offset=5 << 20)
    photo = decode_photo(saved(astronaut(), "PNG"))
    far = replace(exif, photo={**exif.photo, MAKER_NOTE: note})
    photo = replace(photo, metadata=replace(photo.metadata, exif=far))
    exported = export_image(torch.rand(1, 3, 48, 48), photo, "jpeg", ExportOptions())
    assert ["MakerNote" in note.message for note in exported.degraded] == [True]
    assert MAKER_NOTE not in exif_in(exported.data).photo
    assert exif_in(exported.data).photo[33434].data == exif.photo[33434].data


@pytest.mark.parametrize(
    "field",
    [
        number_field("<", BYTE, 6),
        number_field("<", SHORT, 6),
        number_field("<", LONG, 6),
        Field(ASCII, 2, b"6\0"),
        Field(UNDEFINED, 1, b"\6"),
    ],
    ids=["byte", "short", "long", "text", "undefined"],
)
def test_the_orientation_may_have_any_type(field: Field) -> None:
    """Programs write it as a byte or as text too."""
    photo = decode_photo(jpeg_with(to_bytes(Exif("<", {ORIENTATION: field}))))
    assert (photo.width, photo.height, photo.orientation) == (64, 96, 6)


@pytest.mark.parametrize("format", FORMATS)
def test_no_resolution_is_invented(format: str) -> None:
    """A photo without one gives a painting without one."""
    data = painted(jpeg_with(to_bytes(Exif("<", {271: text_field("A")}))), format)
    assert decode_photo(data).metadata.dpi is None
    assert 282 not in exif_in(data).image


def test_unknown_fields_stay_and_those_of_the_file_go() -> None:
    """Any tag that does not describe the file is kept with type and bytes."""
    image = {
        256: number_field(">", SHORT, 4000),
        258: number_field(">", SHORT, 8, 8, 8),
        273: number_field(">", LONG, 99),
        531: number_field(">", SHORT, 1),
        18246: number_field(">", SHORT, 4),
        0xC4A5: Field(UNDEFINED, 9, b"PrintIM\0\0"),
        60000: Field(10, 1, struct.pack(">ii", -1, 3)),
    }
    exif = exif_in(jpeg_with(to_bytes(Exif(">", image))))
    assert set(exif.image) == {18246, 0xC4A5, 60000}
    assert exif.image[60000].data == struct.pack(">ii", -1, 3)


def test_sizes_are_those_of_the_painting_and_only_if_the_photo_has_them() -> None:
    """Nothing is invented, and what counts pixels of the photo is removed."""
    sizes = {
        40962: number_field("<", LONG, 96),
        40963: number_field("<", LONG, 64),
        37396: number_field("<", SHORT, 50, 50),
        41486: Field(5, 1, struct.pack("<II", 2381, 1)),
    }
    after = exif_in(painted(jpeg_with(to_bytes(Exif("<", {}, sizes))), "jpeg"))
    assert {tag: value.data for tag, value in after.photo.items()} == {
        40962: struct.pack("<I", 48), 40963: struct.pack("<I", 48),
    }  # fmt: skip
    plain = {33434: Field(5, 1, struct.pack("<II", 1, 2))}
    after = exif_in(painted(jpeg_with(to_bytes(Exif("<", {}, plain))), "jpeg"))
    assert set(after.photo) == {33434}


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_written_is_read_again(seed: int) -> None:
    """Fields of any length, around a MakerNote at any even offset."""
    generator = torch.Generator().manual_seed(seed)

    def number(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=generator))

    def fields(first: int) -> dict[int, Field]:
        lengths = [number(1, 90) for _ in range(number(1, 12))]
        return {
            first + n: Field(UNDEFINED, length, bytes([n + 1] * length))
            for n, length in enumerate(lengths)
        }

    offset = 2 * number(8, 800)
    note = Field(UNDEFINED, 400, b"n" * 400, offset)
    exif = Exif(
        "<>"[seed % 2], fields(40000), {**fields(50000), MAKER_NOTE: note}, fields(1), fields(1)
    )
    again, orientation, is_damaged = read_exif(TiffReader(to_bytes(exif)))
    assert (orientation, is_damaged) == (1, False)
    for before, after in (
        (exif.image, again.image), (exif.photo, again.photo), (exif.gps, again.gps),
        (exif.interop, again.interop),
    ):  # fmt: skip
        assert {t: f.data for t, f in before.items()} == {t: f.data for t, f in after.items()}
    assert again.photo[MAKER_NOTE].offset == offset
