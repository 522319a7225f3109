"""Alembic environment: runs the steps on the given connection, within its open transaction."""

from alembic import context

from trimtab.upkeep.tables import FORM_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=FORM_TABLE, render_as_batch=True)
context.run_migrations()
