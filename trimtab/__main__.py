"""`python -m trimtab`, where the command is not on the path."""

from trimtab.cli.main import run

run()
