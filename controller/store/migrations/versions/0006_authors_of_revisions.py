"""Authors of revisions"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("revisions", sa.Column("author", sa.Text(), nullable=False, server_default=""))
    op.add_column("revisions", sa.Column("undo_of", sa.Integer(), nullable=False, server_default="0"))
