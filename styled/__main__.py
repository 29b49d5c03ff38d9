"""`python -m styled`."""

from styled.cli.main import app

app(prog_name="styled")
