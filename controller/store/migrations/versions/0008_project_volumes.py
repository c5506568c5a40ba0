"""Project volumes"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "volume_versions",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("repository", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("files", sa.Integer(), nullable=False),
        sa.Column("pushed", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("user_id", "project_id", "name", "digest", name="volume_versions_digest"),
    )
    with op.batch_alter_table("volume_versions", schema=None) as batch_op:
        batch_op.create_index("volume_versions_by_push", ["pushed", "id"], unique=False)
        batch_op.create_index("volume_versions_by_place", ["digest"], unique=False)
    for table in ("revisions", "workloads"):
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.add_column(sa.Column("volumes", sa.JSON(none_as_null=True), nullable=True))
