"""File identity, stamps, digests and names, read without following links or blocking on pipes."""

from __future__ import annotations

import hashlib
import os
import stat
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from styled.errors import ResourceUnavailable

TEMPORARY_PREFIX = ".styled-"
"""Prefix of the hidden names of our own temporary files, in all folders."""

HASHED_AT_ONCE_BYTES = 1 << 20

MAX_PATH_BYTES = 4000
"""Linux allows 4095 for a whole path; the difference is for sidecar and temporary names."""


def input_identity(path: Path) -> tuple[int, int] | None:
    """Return size and mtime_ns of a regular file, None if there is none.

    Links, pipes and other special files count as none.

    Raises:
        ResourceUnavailable: it can't be determined, for instance because of a permission.
    """
    try:
        info = os.stat(path, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _not_readable(path, error) from error
    return (info.st_size, info.st_mtime_ns) if stat.S_ISREG(info.st_mode) else None


def _not_readable(path: Path, error: OSError) -> ResourceUnavailable:
    return ResourceUnavailable(
        f"{path} can't be read: {error.strerror}", "check the permissions, the disk and the mount"
    )


class FileStamp(NamedTuple):
    """What changes when a file is written or replaced.

    A program that writes to a file may keep its size and restore its modification time, but it
    can't set the ctime. The inode tells another file that was moved to the path.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


FileStamps = tuple[tuple[Path, FileStamp | None], ...]
"""Files and their stamps."""


def file_stamp(path: Path) -> FileStamp | None:
    """Return the stamp of a file, or of the file that a link leads to.

    None: there is none, it can't be reached, or it is not a regular file.
    """
    try:
        info = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISREG(info.st_mode):
        return None
    return FileStamp(info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino)


def stamps_of(paths: Iterable[Path]) -> FileStamps:
    """Return the stamps of files, which need not exist."""
    return tuple((path, file_stamp(path)) for path in paths)


def have_changed(stamps: FileStamps) -> bool:
    """Return whether any of the files has changed, appeared or gone since `stamps_of`."""
    return any(file_stamp(path) != stamp for path, stamp in stamps)


def readable(name: str | os.PathLike[str]) -> str:
    r"""Return a file name as text: bytes that are not UTF-8 are escaped as `\xNN`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def sha256_of(path: Path) -> str | None:
    """Return the SHA-256 of a regular file in hexadecimal, None if there is none.

    Raises:
        ResourceUnavailable: it can't be read. That must not be taken for another content.
    """
    digest = hashlib.sha256()
    try:
        info = os.lstat(path)
        if not stat.S_ISREG(info.st_mode):
            return None
        at_once = min(max(info.st_size + 1, 1 << 16), HASHED_AT_ONCE_BYTES)
        # Without a file object: most photos are read by one call, and each call of the system may
        # hand Python's lock to another thread.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            while data := os.read(descriptor, at_once):
                digest.update(data)
        finally:
            os.close(descriptor)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _not_readable(path, error) from error
    return digest.hexdigest()


def caseless(name: str) -> str:
    """Return a name in a canonical form that ignores case and Unicode normalisation."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def lies_in(root: Path, relative: str) -> bool:
    """Return whether no folder between `root` and the file `relative` is a symbolic link.

    A folder that was replaced by a link since the scan could point anywhere.
    """
    folder = root
    for part in PurePosixPath(relative).parts[:-1]:
        folder = folder / part
        if os.path.islink(folder):
            return False
    return True


_PICTURE_SUFFIXES = """
    .jpg .jpeg .jpe .jfif .png .apng .tif .tiff .webp .gif .avif .avifs .heic .heif .hif .bmp .dib
    .jxl .psd .psb .xcf .jp2 .j2k .jpf .jpx .jxr .wdp .exr .hdr .dds .ico .svg .tga .ppm .pgm .pbm
    .pnm .pcx .qoi .3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .fff .iiq .kdc .mef .mos .mrw .nef .nrw
    .orf .eps .pef .raf .raw .rw2 .rwl .sr2 .srf .srw .x3f
    """.split()  # noqa: SIM905  # a list of names is easier to read and to extend
"""Suffixes by which a name says that the file is a picture, whether it can be read or not."""


def has_picture_name(path: str) -> bool:
    """Return whether a file's name says that it is a picture."""
    return os.path.splitext(path)[1].lower() in _PICTURE_SUFFIXES


SETTINGS_SUFFIX, MASK_SUFFIX, INIT_SUFFIX = ".yaml", ".mask.png", ".init.png"
COMPANION_SUFFIXES = (SETTINGS_SUFFIX, MASK_SUFFIX, INIT_SUFFIX)
"""Of files that belong to a photo beside them: `photo.jpg.yaml`, `photo.jpg.mask.png`."""


def is_companion_name(name: str) -> bool:
    """Return whether a file's name says that it belongs to a photo, and is none itself."""
    stem, suffix = os.path.splitext(name)
    if name.lower().endswith((MASK_SUFFIX, INIT_SUFFIX)):
        return True
    return suffix.lower() == SETTINGS_SUFFIX and has_picture_name(stem)


def companions_of(path: Path) -> dict[str, Path]:
    """Return suffix -> file of all regular files that belong to a photo."""
    found = {}
    for suffix in COMPANION_SUFFIXES:
        companion = path.with_name(path.name + suffix)
        try:
            if stat.S_ISREG(os.lstat(companion).st_mode):
                found[suffix] = companion
        except OSError:
            continue
    return found
