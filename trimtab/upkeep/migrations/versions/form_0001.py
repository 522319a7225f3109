"""Versions, the moves of aliases, and which versions have had their files collected."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_number = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "trimtab_versions",
        sa.Column("number", _number, primary_key=True, autoincrement=True),
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("record", sa.Text, nullable=False),
    )
    op.create_index("trimtab_versions_by_task", "trimtab_versions", ["task", "number"])
    op.create_table(
        "trimtab_moves",
        sa.Column("number", _number, primary_key=True, autoincrement=True),
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("alias", sa.String(64), nullable=False),
        sa.Column("version", _number, sa.ForeignKey("trimtab_versions.number"), nullable=False),
        sa.Column("record", sa.Text, nullable=False),
    )
    op.create_index("trimtab_moves_by_alias", "trimtab_moves", ["task", "alias", "number"])
    op.create_table(
        "trimtab_collected",
        sa.Column("version", _number, sa.ForeignKey("trimtab_versions.number"), primary_key=True, autoincrement=False),
        sa.Column("record", sa.Text, nullable=False),
    )
