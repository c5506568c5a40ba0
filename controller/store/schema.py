"""The tables. `migrations/versions` makes them; a test holds both equal. Times are seconds since the epoch."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData()

api_tokens = Table(
    "api_tokens",
    metadata,
    Column("secret_hash", String(64), primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("role", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("created", Float, nullable=False),
)

enroll_tokens = Table(
    "enroll_tokens",
    metadata,
    Column("secret_hash", String(64), primary_key=True),
    Column("device_name", Text, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("profile", Text, nullable=False),
    Column("expires", Float, nullable=False),
)

# Who has spent a token, until it would have ended: the same machine may ask again.
spent_tokens = Table(
    "spent_tokens",
    metadata,
    Column("secret_hash", String(64), primary_key=True),
    Column("key_hash", String(64), nullable=False),
    Column("device_id", Text, nullable=False),
    Column("expires", Float, nullable=False),
)

devices = Table(
    "devices",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("profile", Text, nullable=False),
    Column("enrolled", Float, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("presence", Text, nullable=False),
    Column("session", Integer, nullable=False),
    Column("last_seen", Float, nullable=False),
    Column("facts", LargeBinary, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("observed_generation", Integer, nullable=False),
    Column("condition", Text, nullable=False),
    Column("snapshot_sequence", Integer, nullable=False),
    Column("journal_id", Text, nullable=False),
    Column("journal_number", Integer, nullable=False),
    # What may be placed there; when, by whose token and why that was said.
    Column("scheduling", Text, nullable=False),
    Column("scheduling_since", Float, nullable=False),
    Column("scheduling_by", Text, nullable=False),
    Column("scheduling_reason", Text, nullable=False),
)

builds = Table(
    "builds",
    metadata,
    Column("id", Text, primary_key=True),
    Column("user_id", Text, nullable=False),
    Column("project_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("spec", LargeBinary, nullable=False),
    Column("files", JSON, nullable=False),
    Column("request_id", Text),
    Column("created", Float, nullable=False),
    # Tags that name the result besides the build's id.
    Column("tags", JSON, nullable=False),
    Column("no_cache", Boolean, nullable=False),
    Column("cancel_requested", Boolean, nullable=False),
    # Values of build-time secrets, encrypted; gone when the build has ended.
    Column("secrets", LargeBinary),
    # The image index that joins several images, and when joining is tried (again).
    Column("image_index", JSON(none_as_null=True)),
    Column("join_next", Float, nullable=False),
    UniqueConstraint("user_id", "project_id", "request_id", name="builds_request"),
    Index("builds_by_creation", "created", "id"),
    Index("builds_by_join", "join_next"),
)

build_targets = Table(
    "build_targets",
    metadata,
    Column("build_id", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("profile", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("position", Integer, nullable=False),
    Column("platform", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("failed_step", Text, nullable=False),
    Column("last_lines", JSON, nullable=False),
    Column("artifact", JSON(none_as_null=True)),
    Column("started", Float, nullable=False),
    Column("ended", Float, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_try", Float, nullable=False),
    Column("cache_key", Text, nullable=False),
    Column("cached_from", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("notes", JSON, nullable=False),
    PrimaryKeyConstraint("build_id", "key"),
    Index("build_targets_by_state", "state", "next_try"),
    Index("build_targets_by_cache_key", "cache_key", "ended"),
)

# What a tag of the spec names in the registry, as it was put there last: the next build moves it.
tags = Table(
    "tags",
    metadata,
    Column("repository", Text, nullable=False),
    Column("tag", Text, nullable=False),
    Column("digest", Text, nullable=False),
    PrimaryKeyConstraint("repository", "tag"),
    Index("tags_by_digest", "digest"),
)

# Versions of project volumes, each of which lies in the registry; the one that was pushed last is the latest.
volume_versions = Table(
    "volume_versions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("user_id", Text, nullable=False),
    Column("project_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("repository", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("files", Integer, nullable=False),
    Column("pushed", Float, nullable=False),
    UniqueConstraint("user_id", "project_id", "name", "digest", name="volume_versions_digest"),
    Index("volume_versions_by_push", "pushed", "id"),
    Index("volume_versions_by_place", "digest"),
)

# When the queue last began a target of each user: who has waited longest goes first.
build_turns = Table(
    "build_turns",
    metadata,
    Column("user_id", Text, primary_key=True),
    Column("served", Float, nullable=False),
)

deployments = Table(
    "deployments",
    metadata,
    Column("id", Text, primary_key=True),
    Column("user_id", Text, nullable=False),
    Column("project_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("wish", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("since", Float, nullable=False),
    Column("build_id", Text, nullable=False),
    Column("created", Float, nullable=False),
    Column("updated", Float, nullable=False),
    Column("spec", LargeBinary, nullable=False),
    Column("left_out", JSON, nullable=False),
    Index("deployments_by_creation", "created", "id"),
    Index("deployments_by_user", "user_id", "created", "id"),
    Index("deployments_by_project", "user_id", "project_id", "created", "id"),
    Index("deployments_by_build", "build_id"),
)
# A deleted deployment frees its name at once.
Index(
    "deployments_name",
    deployments.c.user_id,
    deployments.c.project_id,
    deployments.c.name,
    unique=True,
    sqlite_where=text("wish <> 'DELETE'"),
    postgresql_where=text("wish <> 'DELETE'"),
)

revisions = Table(
    "revisions",
    metadata,
    Column("deployment_id", Text, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("project_id", Text, nullable=False),
    Column("build_id", Text, nullable=False),
    Column("spec", LargeBinary, nullable=False),
    Column("created", Float, nullable=False),
    Column("request_id", Text),
    # Values of the secrets of a running service, encrypted; gone once no device is wished to run the revision.
    Column("secrets", LargeBinary),
    # Name of the token with which it was made; the revision that it is equal to, where one was returned to.
    Column("author", Text, nullable=False),
    Column("undo_of", Integer, nullable=False),
    # The versions of project volumes that the revision has; null where it has none.
    Column("volumes", JSON(none_as_null=True)),
    PrimaryKeyConstraint("deployment_id", "revision"),
    UniqueConstraint("user_id", "project_id", "request_id", name="revisions_request"),
)

workloads = Table(
    "workloads",
    metadata,
    Column("deployment_id", Text, nullable=False),
    Column("device_id", Text, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("wish", Text, nullable=False),
    Column("artifact", JSON, nullable=False),
    Column("workload_spec", LargeBinary, nullable=False),
    # Versions of project volumes that it mounts, as in the revision.
    Column("volumes", JSON(none_as_null=True)),
    # When the device was wished to have this revision; 0 where that is not known.
    Column("since", Float, nullable=False, server_default="0"),
    PrimaryKeyConstraint("deployment_id", "device_id"),
    Index("workloads_by_device", "device_id"),
)

instances = Table(
    "instances",
    metadata,
    Column("deployment_id", Text, nullable=False),
    Column("device_id", Text, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("ready", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("artifact_digest", Text, nullable=False),
    Column("status", LargeBinary, nullable=False),
    # Since when it is so, by the device's clock; 0 where that is not known.
    Column("since", Float, nullable=False, server_default="0"),
    PrimaryKeyConstraint("deployment_id", "device_id"),
    Index("instances_by_device", "device_id"),
)

measurements = Table(
    "measurements",
    metadata,
    Column("deployment_id", Text, nullable=False),
    Column("device_id", Text, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("measured", Float, nullable=False),
    Column("cpu_millis_per_second", BigInteger, nullable=False),
    Column("metrics", LargeBinary, nullable=False),
    PrimaryKeyConstraint("deployment_id", "device_id"),
    Index("measurements_by_device", "device_id"),
)

events = Table(
    "events",
    metadata,
    Column("user_id", Text, nullable=False),
    Column("project_id", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("time", Float, nullable=False),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("build_id", Text, nullable=False),
    Column("deployment_id", Text, nullable=False),
    Column("device_id", Text, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("ready", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("occurred", Float, nullable=False),
    # Of an instance: what runs or is to run, and the last output of one that failed.
    Column("artifact_digest", Text, nullable=False, server_default=""),
    Column("last_lines", JSON(none_as_null=True)),
    PrimaryKeyConstraint("user_id", "project_id", "number"),
)
