"""Stream tickets know which login or key they were asked for with: a stream ends when that does."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add a column; tickets of before live for seconds and have none."""
    op.add_column("tickets", sa.Column("origin", sa.Text))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("tickets", "origin")
