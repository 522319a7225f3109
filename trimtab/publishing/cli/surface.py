"""The group of commands `trimtab surface`."""

from __future__ import annotations

import typer

from trimtab.publishing.cli.audit import audit_site
from trimtab.publishing.cli.coverage import coverage, plan, try_edit

app = typer.Typer(help="Published sites: can assistants read, find and cite them?", rich_markup_mode=None)
app.command("audit")(audit_site)
app.command("coverage")(coverage)
app.command("plan")(plan)
app.command("try")(try_edit)
