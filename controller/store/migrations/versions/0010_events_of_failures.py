"""Events of failures"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("events", sa.Column("artifact_digest", sa.Text(), nullable=False, server_default=""))
    op.add_column("events", sa.Column("last_lines", sa.JSON(none_as_null=True), nullable=True))
