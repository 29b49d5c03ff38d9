"""The two pictures `styled demo` draws for itself, from fixed seeds, with no file or network."""

from styled.cli.demo_painting import draw_painting
from styled.cli.demo_photo import draw_photo

__all__ = ["draw_painting", "draw_photo"]
