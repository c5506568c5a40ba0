"""What an artifact says of its inputs: where they are from, which they are, and of what time. Pure.

The keys are those of https://specs.opencontainers.org/image-spec/annotations/
"""

import hashlib
from collections.abc import Sequence

from controller.builds.cache_key import NOT_OF_BUILD
from controller.builds.model import ContextFile
from controller.builds.referrers import canonical
from controller.spec.build_rules import CREATED
from controller.spec.deploy_model import DeploySpec
from controller.spec.model import BuildSpec
from controller.spec.moments import moment

SOURCE, REVISION = "org.opencontainers.image.source", "org.opencontainers.image.revision"
# Lists of `build` whose order makes no other artifact.
UNORDERED = frozenset(("secrets", "volumes"))
# Of what nobody told the time.
LONG_AGO = "1970-01-01T00:00:00Z"


def origin(build: BuildSpec, deploy: DeploySpec, files: Sequence[ContextFile]) -> dict[str, str]:
    """As the spec's labels tell it. Without them there is no source, the revision is a digest of the inputs, and the
    time says that it is not known. The same for all artifacts of a request, and for the same inputs anywhere."""
    told = build.labels
    found = {CREATED: moment(told[CREATED]) if CREATED in told else LONG_AGO}
    if SOURCE in told:
        found[SOURCE] = told[SOURCE]
    if REVISION in told:
        found[REVISION] = told[REVISION]
    # A preview does not know the contents of the files.
    elif all(file.digest for file in files):
        found[REVISION] = _digest(build, deploy, files)
    return found


def _digest(build: BuildSpec, deploy: DeploySpec, files: Sequence[ContextFile]) -> str:
    """Of all that a request says of its artifacts: nothing that the cache key does not have, since what was built for
    an equal request is handed out with the revision that it was built with."""
    # What a file does not say does not count, so that a later version with more fields finds the same.
    told = build.model_dump(mode="json", exclude=NOT_OF_BUILD | {"files"}, exclude_defaults=True)
    document = {
        "build": {**told, **{name: sorted(set(told[name])) for name in UNORDERED & told.keys()}},
        "entrypoint": deploy.entrypoint,
        "pre_exec": deploy.pre_exec,
        "ports": sorted({(port.name, port.container) for port in deploy.network.ports}),
        "files": sorted([file.path, file.digest, file.executable] for file in files),
    }
    return f"sha256:{hashlib.sha256(canonical(document)).hexdigest()}"
