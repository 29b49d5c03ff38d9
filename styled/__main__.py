"""`python -m styled`."""

from styled.cli.entry import main

main()
