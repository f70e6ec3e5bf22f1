"""The tables of our database, as SQLAlchemy Core sees them. Migrations create them; a test compares the two.

Documents are `json`, not `jsonb`: they come back as they were written, keys in order, and a NUL or a lone
surrogate in a log line is no error. All times are `timestamptz`.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSON

METADATA: Final = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
    }
)

_NOW: Final = func.now()

#: One row a run: who asked for what, and, once it is finished, what came out and from what.
RUNS: Final = Table(
    "runs",
    METADATA,
    Column("run_id", Uuid, primary_key=True),  # the Prefect flow run's id
    Column("slice", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("request", JSON, nullable=False),
    Column("request_hash", Text, nullable=False),
    Column("schema_version", Integer, nullable=False),
    Column("seed", BigInteger),
    Column("snapshot_id", Text),
    Column("result_hash", Text),
    Column("summary", JSON),
    Column("artifacts", JSON, nullable=False, server_default=text("'{}'")),  # name → file in the run's folder
    Column("code_version", Text),
    Column("libraries", JSON),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("finished_at", DateTime(timezone=True)),
    Index("runs_created_idx", "created_at", "run_id"),
    Index("runs_owner_idx", "owner", "created_at", "run_id"),
)

#: One row an idempotency key, in its owner's namespace. `run_id` is null between claim and submission.
IDEMPOTENCY_KEYS: Final = Table(
    "idempotency_keys",
    METADATA,
    Column("owner", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("body_hash", Text, nullable=False),
    Column("run_id", Uuid),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Index("idempotency_keys_created_idx", "created_at"),
)

#: One row a channel of the event log; its row lock hands out offsets.
CHANNELS: Final = Table(
    "channels",
    METADATA,
    Column("channel", Text, primary_key=True),
    Column("epoch", Text, nullable=False),  # this life of the channel
    Column("last_offset", BigInteger, nullable=False, server_default=text("0")),
    Column("trimmed_to", BigInteger, nullable=False, server_default=text("0")),  # offsets up to here are gone
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Index("channels_updated_idx", "updated_at"),
)

#: One row an event, append-only.
EVENTS: Final = Table(
    "events",
    METADATA,
    Column("channel", Text, ForeignKey("channels.channel", ondelete="CASCADE"), primary_key=True),
    Column("epoch", Text, primary_key=True),
    Column("offset", BigInteger, primary_key=True),
    Column("type", Text, nullable=False),
    Column("data", JSON, nullable=False),
    Column("key", Text),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Index("events_key_idx", "channel", "key", unique=True, postgresql_where=text("key IS NOT NULL")),
    Index("events_at_idx", "at", postgresql_using="brin"),
)

#: One row an account.
USERS: Final = Table(
    "users",
    METADATA,
    Column("id", Uuid, primary_key=True),
    Column("email", Text, nullable=False),
    Column("hashed_password", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("is_active", Boolean, nullable=False, server_default=text("true")),
    Column("totp_secret", Text),  # sealed; null: a password is enough
    Column("totp_pending", Text),  # sealed; shown to its user, not confirmed yet
    Column("totp_last_step", BigInteger),  # the time step of the last code that was taken
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Index("users_email_key", func.lower(text("email")), unique=True),
)

#: One row a login: the family of the refresh tokens that follow from it, each from the one before.
LOGINS: Final = Table(
    "logins",
    METADATA,
    Column("id", Uuid, primary_key=True),
    Column("user_id", Uuid, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("expires_at", DateTime(timezone=True), nullable=False),  # of its newest refresh token
    Column("revoked_at", DateTime(timezone=True)),
    Column("revoked_because", Text),
    Index("logins_user_idx", "user_id"),
    Index("logins_expires_idx", "expires_at"),
)

#: One row a refresh token: its SHA-256, never itself.
REFRESH_TOKENS: Final = Table(
    "refresh_tokens",
    METADATA,
    Column("digest", Text, primary_key=True),
    Column("login_id", Uuid, ForeignKey("logins.id", ondelete="CASCADE"), nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column("used_at", DateTime(timezone=True)),
    Index("refresh_tokens_login_idx", "login_id"),
)

#: One row an API key: its SHA-256, never itself.
API_KEYS: Final = Table(
    "api_keys",
    METADATA,
    Column("id", Uuid, primary_key=True),
    Column("user_id", Uuid, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    Column("digest", Text, nullable=False, unique=True),
    Column("starts_with", Text, nullable=False),  # tells a user's keys apart
    Column("scopes", JSON, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("expires_at", DateTime(timezone=True)),
    Column("last_used_at", DateTime(timezone=True)),
    Index("api_keys_user_idx", "user_id", "created_at", "id"),
)

#: One row a stream ticket that has not been used yet.
TICKETS: Final = Table(
    "tickets",
    METADATA,
    Column("digest", Text, primary_key=True),
    Column("principal", Text, nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("holder_until", DateTime(timezone=True)),  # when the credential expires that it was asked for with
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column("origin", Text),  # the login or key that it was asked for with; null: the local key
    Index("tickets_expires_idx", "expires_at"),
)

#: One row a security event, append-only. No column ever holds a secret.
AUDIT_EVENTS: Final = Table(
    "audit_events",
    METADATA,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("event", Text, nullable=False),
    Column("actor", Text),  # the principal who did it, null: nobody known
    Column("subject", Text),  # the principal, or the key, it was done to
    Column("address", Text),
    Column("request_id", Text),
    Column("details", JSON, nullable=False, server_default=text("'{}'")),
    Index("audit_events_at_idx", "at", postgresql_using="brin"),
)

#: One row a trading session: what was asked, where its ledger is, and who may write to it (the lease).
SESSIONS: Final = Table(
    "sessions",
    METADATA,
    Column("session_id", Uuid, primary_key=True),  # the id of the run that began it
    Column("owner", Text, nullable=False),
    Column("slice", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("feed", Text, nullable=False),
    Column("request", JSON, nullable=False),
    Column("snapshot_id", Text),
    Column("code_version", Text),
    Column("status", Text, nullable=False),
    Column("reason", Text, nullable=False, server_default=text("''")),
    Column("seq", BigInteger, nullable=False, server_default=text("0")),  # events in its ledger
    Column("ledger_hash", Text, nullable=False),
    Column("told", BigInteger, nullable=False, server_default=text("0")),  # of them, published
    Column("cash", Text, nullable=False),
    Column("equity", Text, nullable=False),
    Column("steps", BigInteger, nullable=False, server_default=text("0")),
    Column("orders", BigInteger, nullable=False, server_default=text("0")),
    Column("fills", BigInteger, nullable=False, server_default=text("0")),
    Column("bar", Text),  # time of the last bar
    Column("certificate", JSON),  # the last one
    Column("certified", BigInteger, nullable=False, server_default=text("0")),  # events that it covers
    Column("lease_token", BigInteger, nullable=False, server_default=text("0")),
    Column("lease_holder", Text),
    Column("lease_until", DateTime(timezone=True)),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("ended_at", DateTime(timezone=True)),
    Index("sessions_owner_idx", "owner", "created_at", "session_id"),
    Index("sessions_open_idx", "status", postgresql_where=text("ended_at IS NULL")),
)

#: One row an event of a session's ledger, append-only. Its session is there: what inserts it has just updated that row,
#: and a trigger keeps sessions with a ledger (a foreign key would look again at each event). The index by type leaves
#: out what every bar brings: that is found by number.
LEDGER_EVENTS: Final = Table(
    "ledger_events",
    METADATA,
    Column("session_id", Uuid, primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("type", Text, nullable=False),
    Column("data", JSON, nullable=False),
    Column("key", Text),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Index(
        "ledger_events_key_idx", "session_id", "key", unique=True, postgresql_where=text("key IS NOT NULL")
    ),
    Index(
        "ledger_events_type_idx",
        "session_id",
        "type",
        "seq",
        postgresql_where=text("type NOT IN ('bars', 'seen', 'closed')"),
    ),
)

#: One row a session and symbol: the bars that its strategies were warmed up with, Arrow IPC.
SESSION_BARS: Final = Table(
    "session_bars",
    METADATA,
    Column("session_id", Uuid, ForeignKey("sessions.session_id", ondelete="RESTRICT"), primary_key=True),
    Column("symbol", Text, primary_key=True),
    Column("instrument", JSON, nullable=False),
    Column("timeframe", Text, nullable=False),
    Column("bars", LargeBinary, nullable=False),
)

#: One row a session: its state after `seq` events, and the bars it had seen by then; it saves folding them.
SESSION_SNAPSHOTS: Final = Table(
    "session_snapshots",
    METADATA,
    Column("session_id", Uuid, ForeignKey("sessions.session_id", ondelete="CASCADE"), primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("ledger_hash", Text, nullable=False),
    Column("state", JSON, nullable=False),
    Column("seen", LargeBinary, nullable=False),
)

#: One row a command to a session; it is carried out once its ledger has the key `command:ID`.
SESSION_COMMANDS: Final = Table(
    "session_commands",
    METADATA,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("session_id", Uuid, ForeignKey("sessions.session_id", ondelete="CASCADE"), nullable=False),
    Column("command", Text, nullable=False),
    Column("by", Text, nullable=False),
    Column("flatten", Boolean, nullable=False, server_default=text("false")),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Index("session_commands_session_idx", "session_id", "id"),
)

#: One row a session that was found abandoned: what was done about it while its ledger had `seq` events.
SESSION_CASES: Final = Table(
    "session_cases",
    METADATA,
    Column("session_id", Uuid, ForeignKey("sessions.session_id", ondelete="CASCADE"), primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("run_id", Uuid),  # started last to go on with it
    Column("deaths", Integer, nullable=False, server_default=text("0")),  # of such runs, one after the other
    Column("not_before", DateTime(timezone=True)),  # for the next run
    Column("left_at", BigInteger),  # the lease's token at which it was left; null: it is not
    Column("left_because", Text),  # dead, cancelled
)

#: One row an alert. Until it is acknowledged, what is the same (owner, rule, about) is counted in it.
ALERTS: Final = Table(
    "alerts",
    METADATA,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("owner", Text, nullable=False),
    Column("rule", Text, nullable=False),
    Column("about", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("data", JSON, nullable=False),
    Column("count", BigInteger, nullable=False, server_default=text("1")),
    Column("first_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("last_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("due", Boolean, nullable=False, server_default=text("true")),  # to be sent
    Column("sent_at", DateTime(timezone=True)),
    Column("sending_error", Text),
    Column("acknowledged_at", DateTime(timezone=True)),
    Column("acknowledged_by", Text),
    Index(
        "alerts_open_key",
        "owner",
        "rule",
        "about",
        unique=True,
        postgresql_where=text("acknowledged_at IS NULL"),
    ),
    Index("alerts_owner_idx", "owner", "id"),
    Index("alerts_due_idx", "id", postgresql_where=text("due")),
)
