"""How Alembic runs the steps: on the connection that it is handed, within the transaction that is open there."""

from alembic import context

from trimtab.upkeep.tables import FORM_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=FORM_TABLE, render_as_batch=True)
context.run_migrations()
