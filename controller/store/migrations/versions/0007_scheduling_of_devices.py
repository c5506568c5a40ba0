"""Scheduling of devices"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("devices", sa.Column("scheduling", sa.Text(), nullable=False, server_default="OPEN"))
    op.add_column("devices", sa.Column("scheduling_since", sa.Float(), nullable=False, server_default="0"))
    op.add_column("devices", sa.Column("scheduling_by", sa.Text(), nullable=False, server_default=""))
    op.add_column("devices", sa.Column("scheduling_reason", sa.Text(), nullable=False, server_default=""))
