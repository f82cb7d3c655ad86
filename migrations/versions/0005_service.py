"""What a service needs that bots rely on: a mark of each market's changes, positions in Signals, who changed what, and
requests that may come twice."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

ACTED_ON = ("position", "pays_up_to_bps")


def upgrade() -> None:
    op.add_column("markets", sa.Column("changes", sa.BigInteger, nullable=False, server_default="0"))
    for name in ACTED_ON:
        op.add_column("predictions", sa.Column(name, sa.Double))
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.String(64), nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("target", sa.String(128), nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("request_id", sa.String(64)),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("actor", sa.String(64), nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("request_sha256", sa.String(64), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("status", sa.Integer),
        sa.Column("headers", sa.Text),
        sa.Column("body", sa.LargeBinary),
        sa.PrimaryKeyConstraint("actor", "key", name="pk_idempotency_keys"),
    )
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"])
    op.add_column("schedules", sa.Column("due_at", sa.BigInteger))
    op.create_table(
        "workers",
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("seen_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("owner", name="pk_workers"),
    )


def downgrade() -> None:
    op.drop_table("workers")
    op.drop_column("schedules", "due_at")
    op.drop_table("idempotency_keys")
    op.drop_table("audit")
    for name in ACTED_ON:
        op.drop_column("predictions", name)
    op.drop_column("markets", "changes")
