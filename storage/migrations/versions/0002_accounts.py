"""Accounts: users, logins and their refresh tokens, API keys, stream tickets, the audit log."""

from datetime import datetime

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSON

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_NOW = sa.func.now()


def _time(
    name: str, *, nullable: bool = True, server_default: sa.Function[datetime] | None = None
) -> sa.Column[datetime]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable, server_default=server_default)


def upgrade() -> None:
    """Create six tables."""
    op.create_table(
        "users",
        sa.Column("id", sa.Uuid),
        sa.Column("email", sa.Text, nullable=False),
        sa.Column("hashed_password", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("is_active", sa.Boolean, nullable=False, server_default=sa.text("true")),
        sa.Column("totp_secret", sa.Text),
        sa.Column("totp_pending", sa.Text),
        sa.Column("totp_last_step", sa.BigInteger),
        _time("created_at", nullable=False, server_default=_NOW),
        sa.PrimaryKeyConstraint("id", name="users_pkey"),
    )
    op.create_index("users_email_key", "users", [sa.text("lower(email)")], unique=True)
    op.create_table(
        "logins",
        sa.Column("id", sa.Uuid),
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("scopes", JSON, nullable=False),
        _time("created_at", nullable=False, server_default=_NOW),
        _time("expires_at", nullable=False),
        _time("revoked_at"),
        sa.Column("revoked_because", sa.Text),
        sa.PrimaryKeyConstraint("id", name="logins_pkey"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="logins_user_id_fkey", ondelete="CASCADE"),
    )
    op.create_index("logins_user_idx", "logins", ["user_id"])
    op.create_index("logins_expires_idx", "logins", ["expires_at"])
    op.create_table(
        "refresh_tokens",
        sa.Column("digest", sa.Text),
        sa.Column("login_id", sa.Uuid, nullable=False),
        _time("expires_at", nullable=False),
        _time("used_at"),
        sa.PrimaryKeyConstraint("digest", name="refresh_tokens_pkey"),
        sa.ForeignKeyConstraint(
            ["login_id"], ["logins.id"], name="refresh_tokens_login_id_fkey", ondelete="CASCADE"
        ),
    )
    op.create_index("refresh_tokens_login_idx", "refresh_tokens", ["login_id"])
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Uuid),
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("starts_with", sa.Text, nullable=False),
        sa.Column("scopes", JSON, nullable=False),
        _time("created_at", nullable=False, server_default=_NOW),
        _time("expires_at"),
        _time("last_used_at"),
        sa.PrimaryKeyConstraint("id", name="api_keys_pkey"),
        sa.UniqueConstraint("digest", name="api_keys_digest_key"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="api_keys_user_id_fkey", ondelete="CASCADE"),
    )
    op.create_index("api_keys_user_idx", "api_keys", ["user_id", "created_at", "id"])
    op.create_table(
        "tickets",
        sa.Column("digest", sa.Text),
        sa.Column("principal", sa.Text, nullable=False),
        sa.Column("scopes", JSON, nullable=False),
        _time("holder_until"),
        _time("expires_at", nullable=False),
        sa.PrimaryKeyConstraint("digest", name="tickets_pkey"),
    )
    op.create_index("tickets_expires_idx", "tickets", ["expires_at"])
    op.create_table(
        "audit_events",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True)),
        _time("at", nullable=False, server_default=sa.func.clock_timestamp()),
        sa.Column("event", sa.Text, nullable=False),
        sa.Column("actor", sa.Text),
        sa.Column("subject", sa.Text),
        sa.Column("address", sa.Text),
        sa.Column("request_id", sa.Text),
        sa.Column("details", JSON, nullable=False, server_default=sa.text("'{}'")),
        sa.PrimaryKeyConstraint("id", name="audit_events_pkey"),
    )
    op.create_index("audit_events_at_idx", "audit_events", ["at"], postgresql_using="brin")


def downgrade() -> None:
    """Drop them: every account, key and audit event is lost."""
    for table in ("audit_events", "tickets", "api_keys", "refresh_tokens", "logins", "users"):
        op.drop_table(table)
