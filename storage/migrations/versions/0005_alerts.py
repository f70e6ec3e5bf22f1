"""Alerts: what somebody should know, until it is acknowledged, and whether it was sent."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSON

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_CLOCK = sa.func.clock_timestamp()
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create one table."""
    op.create_table(
        "alerts",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True)),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("about", sa.Text, nullable=False),
        sa.Column("severity", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("data", JSON, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False, server_default=sa.text("1")),
        sa.Column("first_at", _TIME, nullable=False, server_default=_CLOCK),
        sa.Column("last_at", _TIME, nullable=False, server_default=_CLOCK),
        sa.Column("due", sa.Boolean, nullable=False, server_default=sa.text("true")),
        sa.Column("sent_at", _TIME),
        sa.Column("sending_error", sa.Text),
        sa.Column("acknowledged_at", _TIME),
        sa.Column("acknowledged_by", sa.Text),
        sa.PrimaryKeyConstraint("id", name="alerts_pkey"),
    )
    op.create_index(
        "alerts_open_key",
        "alerts",
        ["owner", "rule", "about"],
        unique=True,
        postgresql_where=sa.text("acknowledged_at IS NULL"),
    )
    op.create_index("alerts_owner_idx", "alerts", ["owner", "id"])
    op.create_index("alerts_due_idx", "alerts", ["id"], postgresql_where=sa.text("due"))


def downgrade() -> None:
    """Drop it: alerts are lost."""
    op.drop_table("alerts")
