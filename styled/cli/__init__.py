"""The command line."""

import os

# styled has no plugins for pydantic, and looking for some would take a tenth of `styled status`.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")
