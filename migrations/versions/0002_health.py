"""What a layer's gradient shows besides: its largest entry, its cosine to the epoch before, its noise scale."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # rows that stand were measured without these, and stay without
    for name in ("largest", "cosine", "noise_scale"):
        op.add_column("gradient_health", sa.Column(name, sa.Double()))


def downgrade() -> None:
    for name in ("noise_scale", "cosine", "largest"):
        op.drop_column("gradient_health", name)
