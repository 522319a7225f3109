"""Adds the evidence of moves: programs of forms 1 and 2 each refuse it in rows of the other."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_number = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "trimtab_evidence",
        sa.Column("move", _number, sa.ForeignKey("trimtab_moves.number"), primary_key=True, autoincrement=False),
        sa.Column("record", sa.Text, nullable=False),
    )
