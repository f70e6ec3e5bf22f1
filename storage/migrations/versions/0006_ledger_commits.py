"""Commits of sessions cost less: no check of each event's session, no index entry by type for what each bar brings.

An event is inserted by the statement that has just moved its session's row on, so its session is there; a trigger keeps
what the foreign key also did, that no session is removed whose ledger is there. Sessions may be open meanwhile: no row
changes.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_RARE = sa.text("type NOT IN ('bars', 'seen', 'closed')")

_TRIGGER = """
    CREATE FUNCTION keep_ledger() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF EXISTS (SELECT FROM ledger_events WHERE ledger_events.session_id = OLD.session_id) THEN
            RAISE foreign_key_violation USING MESSAGE = format('session %s has a ledger', OLD.session_id);
        END IF;
        RETURN OLD;
    END $$;
    CREATE TRIGGER sessions_keep_ledger BEFORE DELETE ON sessions FOR EACH ROW EXECUTE FUNCTION keep_ledger();
"""


def upgrade() -> None:
    """Drop a foreign key, narrow an index, make a trigger."""
    op.drop_constraint("ledger_events_session_id_fkey", "ledger_events")
    op.execute(_TRIGGER)
    op.drop_index("ledger_events_type_idx", "ledger_events")
    columns = ["session_id", "type", "seq"]
    op.create_index("ledger_events_type_idx", "ledger_events", columns, postgresql_where=_RARE)


def downgrade() -> None:
    """Make them as they were."""
    op.drop_index("ledger_events_type_idx", "ledger_events")
    op.create_index("ledger_events_type_idx", "ledger_events", ["session_id", "type", "seq"])
    op.execute("DROP TRIGGER sessions_keep_ledger ON sessions; DROP FUNCTION keep_ledger()")
    op.create_foreign_key(
        "ledger_events_session_id_fkey",
        "ledger_events",
        "sessions",
        ["session_id"],
        ["session_id"],
        ondelete="RESTRICT",
    )
