"""The two pictures that `styled demo` draws, from fixed seeds, without files or network."""

from styled.cli.demo_painting import draw_painting
from styled.cli.demo_photo import draw_photo

__all__ = ["draw_painting", "draw_photo"]
