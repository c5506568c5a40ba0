"""Lists of deployments"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("workloads", "instances"):
        op.add_column(table, sa.Column("since", sa.Float(), nullable=False, server_default="0"))
    with op.batch_alter_table("deployments", schema=None) as batch_op:
        batch_op.create_index("deployments_by_user", ["user_id", "created", "id"], unique=False)
        batch_op.create_index("deployments_by_project", ["user_id", "project_id", "created", "id"], unique=False)
