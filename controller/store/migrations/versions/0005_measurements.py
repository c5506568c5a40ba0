"""Measurements"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "measurements",
        sa.Column("deployment_id", sa.Text(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("measured", sa.Float(), nullable=False),
        sa.Column("cpu_millis_per_second", sa.BigInteger(), nullable=False),
        sa.Column("metrics", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("deployment_id", "device_id"),
    )
    with op.batch_alter_table("measurements", schema=None) as batch_op:
        batch_op.create_index("measurements_by_device", ["device_id"], unique=False)
