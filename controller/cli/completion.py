"""What a shell proposes behind <TAB> from the server. Silent where the server cannot be asked quickly."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice

from controller.cli.context import context_names, context_path, load_context, owner
from controller.cli.errors import UsageProblem
from longshore.client import Client
from longshore.failures import LongshoreError
from longshore.v1 import types_pb2

# A person waits for each key.
_SECONDS = 2.0
_MOST = 30


def build_ids(incomplete: str) -> list[tuple[str, str]]:
    """Ids of the project's newest builds, with their names and states."""
    found: list[tuple[str, str]] = []
    with suppress(LongshoreError, UsageProblem), _client() as (client, project):
        for build in client.list_builds(project):
            if build.id.startswith(incomplete):
                found.append((build.id, build.name))
            if len(found) == _MOST:
                break
    return found


def target_keys(incomplete: str) -> list[str]:
    """Names of target profiles."""
    with suppress(LongshoreError, UsageProblem), _client() as (client, _):
        return [one.name for one in client.list_target_profiles() if one.name.startswith(incomplete)]
    return []


def deployment_names(incomplete: str) -> list[str]:
    """Deployments of the project."""
    with suppress(LongshoreError, UsageProblem), _client() as (client, project):
        return [one.name for one in islice(client.list_deployments(project), _MOST) if one.name.startswith(incomplete)]
    return []


def device_names(incomplete: str) -> list[str]:
    with suppress(LongshoreError, UsageProblem), _client() as (client, _):
        return [one.name for one in islice(client.list_devices(), _MOST) if one.name.startswith(incomplete)]
    return []


def contexts(incomplete: str) -> list[str]:
    """Names of contexts."""
    return [name for name in context_names() if name.startswith(incomplete)]


@contextmanager
def _client() -> Iterator[tuple[Client, types_pb2.Project]]:
    """A client of the context in use, and the project of settings and variables; options are not known yet."""
    context = load_context(context_path(None))
    names = [os.environ.get(variable, "") for variable in ("LONGSHORE_USER", "LONGSHORE_PROJECT")]
    with Client(
        context.address, context.token, context.ca or None, timeout=_SECONDS, patience=0, page_size=_MOST
    ) as made:
        yield made, owner(context, *names)
