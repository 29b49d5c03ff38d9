"""The command line: the only package that prints and that maps errors to exit codes."""

import os

# styled has no pydantic plugins, and the search for them would take a tenth of the run time of
# `styled status`.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")
