"""Asks a machine of the cluster for its versions.

Ray sends this module's code along (see `membership`), so that it runs where styled is missing.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("styled", "torch", "torchvision", "pillow", "numpy")
"""Packages whose versions decide the bytes of results, and the format of what is exchanged."""


def versions() -> dict[str, str | None]:
    """Return the version of each of `PACKAGES`, None where it is not installed.

    The local part is left out: builds for CPUs and for GPUs have the same code.
    """
    found: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            found[package] = version(package).partition("+")[0]
        except PackageNotFoundError:
            found[package] = None
    return found


def difference(own: dict[str, str | None], other: dict[str, str | None]) -> str | None:
    """Return in which way a machine differs from this one; None: it does not."""
    for package in PACKAGES:
        if other.get(package) is None:
            return f"{package} is not installed there"
        if own.get(package) != other[package]:
            return f"it has {package} {other[package]}, and this machine {own.get(package)}"
    return None
