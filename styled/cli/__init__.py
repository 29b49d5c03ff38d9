"""What a person types: the only code that prints, and the only map from errors to exit codes."""

import os

# styled has no plugins for pydantic, and looking for some would take a tenth of `styled status`.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")
