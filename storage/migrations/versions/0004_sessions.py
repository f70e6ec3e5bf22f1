"""Trading sessions: what was asked and who writes, their ledgers, warm-up bars, snapshots and commands."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSON

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_CLOCK = sa.func.clock_timestamp()


def _time(name: str, *, nullable: bool = True, default: sa.Function | None = None) -> sa.Column:  # type: ignore[type-arg]
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable, server_default=default)


def _count(name: str) -> sa.Column:  # type: ignore[type-arg]
    return sa.Column(name, sa.BigInteger, nullable=False, server_default=sa.text("0"))


def _of_session(table: str, on_delete: str) -> sa.ForeignKeyConstraint:
    name = f"{table}_session_id_fkey"
    return sa.ForeignKeyConstraint(["session_id"], ["sessions.session_id"], name=name, ondelete=on_delete)


def upgrade() -> None:
    """Create five tables."""
    op.create_table(
        "sessions",
        sa.Column("session_id", sa.Uuid),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("slice", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("feed", sa.Text, nullable=False),
        sa.Column("request", JSON, nullable=False),
        sa.Column("snapshot_id", sa.Text),
        sa.Column("code_version", sa.Text),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False, server_default=sa.text("''")),
        _count("seq"),
        sa.Column("ledger_hash", sa.Text, nullable=False),
        _count("told"),
        sa.Column("cash", sa.Text, nullable=False),
        sa.Column("equity", sa.Text, nullable=False),
        _count("steps"),
        _count("orders"),
        _count("fills"),
        sa.Column("bar", sa.Text),
        sa.Column("certificate", JSON),
        _count("certified"),
        _count("lease_token"),
        sa.Column("lease_holder", sa.Text),
        _time("lease_until"),
        _time("created_at", nullable=False, default=sa.func.now()),
        _time("updated_at", nullable=False, default=sa.func.now()),
        _time("ended_at"),
        sa.PrimaryKeyConstraint("session_id", name="sessions_pkey"),
    )
    op.create_index("sessions_owner_idx", "sessions", ["owner", "created_at", "session_id"])
    op.create_index("sessions_open_idx", "sessions", ["status"], postgresql_where=sa.text("ended_at IS NULL"))
    op.create_table(
        "ledger_events",
        sa.Column("session_id", sa.Uuid),
        sa.Column("seq", sa.BigInteger),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("data", JSON, nullable=False),
        sa.Column("key", sa.Text),
        _time("at", nullable=False, default=_CLOCK),
        sa.PrimaryKeyConstraint("session_id", "seq", name="ledger_events_pkey"),
        _of_session("ledger_events", "RESTRICT"),
    )
    op.create_index(
        "ledger_events_key_idx",
        "ledger_events",
        ["session_id", "key"],
        unique=True,
        postgresql_where=sa.text("key IS NOT NULL"),
    )
    op.create_index("ledger_events_type_idx", "ledger_events", ["session_id", "type", "seq"])
    op.create_table(
        "session_bars",
        sa.Column("session_id", sa.Uuid),
        sa.Column("symbol", sa.Text),
        sa.Column("instrument", JSON, nullable=False),
        sa.Column("timeframe", sa.Text, nullable=False),
        sa.Column("bars", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("session_id", "symbol", name="session_bars_pkey"),
        _of_session("session_bars", "RESTRICT"),
    )
    op.create_table(
        "session_snapshots",
        sa.Column("session_id", sa.Uuid),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("ledger_hash", sa.Text, nullable=False),
        sa.Column("state", JSON, nullable=False),
        sa.Column("seen", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("session_id", name="session_snapshots_pkey"),
        _of_session("session_snapshots", "CASCADE"),
    )
    op.create_table(
        "session_commands",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True)),
        sa.Column("session_id", sa.Uuid, nullable=False),
        sa.Column("command", sa.Text, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("flatten", sa.Boolean, nullable=False, server_default=sa.text("false")),
        _time("at", nullable=False, default=_CLOCK),
        sa.PrimaryKeyConstraint("id", name="session_commands_pkey"),
        _of_session("session_commands", "CASCADE"),
    )
    op.create_index("session_commands_session_idx", "session_commands", ["session_id", "id"])


def downgrade() -> None:
    """Drop them: every session and its ledger is lost."""
    for table in ("session_commands", "session_snapshots", "session_bars", "ledger_events", "sessions"):
        op.drop_table(table)
