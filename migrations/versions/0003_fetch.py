"""The schedule that fetches bars of exchanges: it asks for nothing as long as no source is set."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

schedules = sa.table(
    "schedules",
    sa.column("kind", sa.String),
    sa.column("trigger", sa.String),
    sa.column("params", sa.Text),
    sa.column("enabled", sa.Boolean),
    sa.column("updated_at", sa.BigInteger),
)


def upgrade() -> None:
    # somebody may have set it by hand
    there = op.get_bind().scalar(sa.select(sa.func.count()).where(schedules.c.kind == "fetch"))
    if not there:
        row = {"kind": "fetch", "trigger": "every 10s", "params": "{}", "enabled": True, "updated_at": 0}
        op.bulk_insert(schedules, [row])


def downgrade() -> None:
    op.execute(schedules.delete().where(schedules.c.kind == "fetch"))
