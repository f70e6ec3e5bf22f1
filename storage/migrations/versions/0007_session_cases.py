"""What was done about sessions that were found abandoned: it outlives the process that looks after them."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create one table."""
    op.create_table(
        "session_cases",
        sa.Column("session_id", sa.Uuid),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("run_id", sa.Uuid),
        sa.Column("deaths", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("not_before", _TIME),
        sa.Column("left_at", sa.BigInteger),
        sa.Column("left_because", sa.Text),
        sa.PrimaryKeyConstraint("session_id", name="session_cases_pkey"),
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["sessions.session_id"],
            name="session_cases_session_id_fkey",
            ondelete="CASCADE",
        ),
    )


def downgrade() -> None:
    """Drop it: sessions that were left are gone on with, and deaths are counted anew."""
    op.drop_table("session_cases")
