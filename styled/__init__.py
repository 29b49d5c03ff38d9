"""styled: a daemon that turns photos dropped into a folder into paintings.

`styled.stylize` paints one photo, and `styled.Engine` many; see `styled.api`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from styled.api import Engine, stylize

__version__ = "0.1.0"
__all__ = ["Engine", "__version__", "stylize"]


def __getattr__(name: str) -> object:
    """Import the Python interface when it is first used: torch takes seconds to import."""
    if name in ("Engine", "stylize"):
        from styled import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
