"""Runs, idempotency keys and the event log."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSON

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_NOW = sa.func.now()


def upgrade() -> None:
    """Create the first four tables."""
    op.create_table(
        "runs",
        sa.Column("run_id", sa.Uuid),
        sa.Column("slice", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("request", JSON, nullable=False),
        sa.Column("request_hash", sa.Text, nullable=False),
        sa.Column("schema_version", sa.Integer, nullable=False),
        sa.Column("seed", sa.BigInteger),
        sa.Column("snapshot_id", sa.Text),
        sa.Column("result_hash", sa.Text),
        sa.Column("summary", JSON),
        sa.Column("artifacts", JSON, nullable=False, server_default=sa.text("'{}'")),
        sa.Column("code_version", sa.Text),
        sa.Column("libraries", JSON),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("run_id", name="runs_pkey"),
    )
    op.create_index("runs_created_idx", "runs", ["created_at", "run_id"])
    op.create_index("runs_owner_idx", "runs", ["owner", "created_at", "run_id"])
    op.create_table(
        "idempotency_keys",
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("body_hash", sa.Text, nullable=False),
        sa.Column("run_id", sa.Uuid),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
        sa.PrimaryKeyConstraint("owner", "key", name="idempotency_keys_pkey"),
    )
    op.create_index("idempotency_keys_created_idx", "idempotency_keys", ["created_at"])
    op.create_table(
        "channels",
        sa.Column("channel", sa.Text),
        sa.Column("epoch", sa.Text, nullable=False),
        sa.Column("last_offset", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("trimmed_to", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
        sa.PrimaryKeyConstraint("channel", name="channels_pkey"),
    )
    op.create_index("channels_updated_idx", "channels", ["updated_at"])
    op.create_table(
        "events",
        sa.Column("channel", sa.Text, nullable=False),
        sa.Column("epoch", sa.Text, nullable=False),
        sa.Column("offset", sa.BigInteger, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("data", JSON, nullable=False),
        sa.Column("key", sa.Text),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.clock_timestamp()),
        sa.PrimaryKeyConstraint("channel", "epoch", "offset", name="events_pkey"),
        sa.ForeignKeyConstraint(
            ["channel"], ["channels.channel"], name="events_channel_fkey", ondelete="CASCADE"
        ),
    )
    op.create_index(
        "events_key_idx",
        "events",
        ["channel", "key"],
        unique=True,
        postgresql_where=sa.text("key IS NOT NULL"),
    )
    op.create_index("events_at_idx", "events", ["at"], postgresql_using="brin")


def downgrade() -> None:
    """Drop them: every run and event is lost."""
    for table in ("events", "channels", "idempotency_keys", "runs"):
        op.drop_table(table)
