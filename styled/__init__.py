"""styled: a daemon that turns photos dropped into a folder into paintings."""

__version__ = "0.1.0"
