"""Alembic's entry: runs the revisions on the connection that `storage.migrations.upgrade` hands over."""

from alembic import context

from storage.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
context.run_migrations()
