"""From a workload and its release to an instance that runs."""

import asyncio
import os
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from baremetal_agent.virtualenv.belongings import Belongings, Store, account
from baremetal_agent.virtualenv.bundle import ENVIRONMENT
from baremetal_agent.virtualenv.confinement import WRITABLE_ROOT, Confinement, allowed
from baremetal_agent.virtualenv.instances import Instance, Instances
from baremetal_agent.virtualenv.launcher import Launch, Launcher, Means
from baremetal_agent.virtualenv.layout import Bind, lay_out
from baremetal_agent.virtualenv.ports import choose_ports, variables
from baremetal_agent.virtualenv.releases import Release
from baremetal_agent.virtualenv.system import python_home
from edge_agent.runtime.fail_points import reach
from edge_agent.runtime.model import ProjectVolume, Workload
from edge_agent.runtime.shares import chosen_cores, thread_variables
from edge_agent.runtime.threads import in_thread

# In the environment of each instance: whose it is can be seen from outside.
MARKER = "LONGSHORE_INSTANCE"


class Starter:
    """For one event loop. `starting` are the ids of instances that are not started yet."""

    def __init__(self, owner: str, boot: str, instances: Instances, launcher: Launcher, store: Store) -> None:
        self.starting: set[str] = set()
        self._owner = owner
        self._boot = boot
        self._instances = instances
        self._launcher = launcher
        self._store = store

    async def start(
        self, workload: Workload, release: Release, contents: Sequence[tuple[ProjectVolume, Path]] = ()
    ) -> Instance:
        """Afterwards a new instance runs, sees `contents` read-only, and what it is outlives a power cut. Raises
        BackendError, OSError, and then nothing of it is left."""
        means = await self._launcher.means()
        there = self._instances.all()
        used = [(one.deployment_id, one.uid) for one in there if one.uid is not None]
        belongings = self._store.gather(workload, used, apart=bool(means.isolation))
        shown = tuple(Bind(str(files), volume.target) for volume, files in contents)
        belongings = replace(belongings, binds=(*belongings.binds, *shown))
        reach("start.gathered")
        try:
            # No other start comes in between: what is chosen is chosen once its folder is there.
            instance = self._described(workload, means, belongings, there)
            self._instances.create(instance)
        except BaseException:
            self._store.drop_secrets(belongings.secrets)
            raise
        self.starting.add(instance.id)
        reach("start.created")
        # A slow disk holds up nobody who waits for the workload, only those who are told of it.
        settling = asyncio.create_task(in_thread(lambda: self._settle(instance)))
        try:
            if WRITABLE_ROOT in workload.allow:
                release = await asyncio.to_thread(_own_copy, release, self._instances.path(instance.id), instance.uid)
            await self._launcher.start(self._launch(workload, release, instance, belongings))
            await settling
        except BaseException:
            await asyncio.gather(settling, return_exceptions=True)
            await self.discard(instance)
            raise
        finally:
            self.starting.discard(instance.id)
        return instance

    def _settle(self, instance: Instance) -> None:
        self._instances.settle(instance)
        self._store.settle()

    async def discard(self, instance: Instance) -> None:
        """Nothing is left of an instance that does not run."""
        await self._launcher.clear(instance)
        self._store.drop_secrets(instance.secrets)
        reach("remove.cleared")
        await self._instances.discard(instance)

    def _described(
        self, workload: Workload, means: Means, belongings: Belongings, there: Sequence[Instance]
    ) -> Instance:
        others = [other for other in there if self._instances.ended(other) is None]
        ports = choose_ports(workload, {number for other in others for _, number in other.ports})
        name = f"{workload.name}-r{workload.revision}-{secrets.token_hex(4)}"
        return Instance(
            id=name,
            owner=self._owner,
            deployment_id=workload.deployment_id,
            revision=workload.revision,
            digest=workload.artifact.digest,
            name=workload.name,
            boot=self._boot,
            launcher=self._launcher.name,
            ports=ports,
            uid=belongings.uid,
            groups=belongings.granted.groups,
            allow=tuple(sorted(allowed(workload, dict(ports).values()))),
            apart=bool(means.isolation),
            cgroup=self._launcher.group(self._owner, name),
            cores=chosen_cores(workload.resources, [other.cores for other in others]),
            secrets=belongings.secrets,
            volumes=tuple(volume.digest for volume in workload.project_volumes),
        )

    def _launch(self, workload: Workload, release: Release, instance: Instance, belongings: Belongings) -> Launch:
        given = {name for name, _ in (*release.description.environment, *workload.environment)}
        own = {**dict(belongings.granted.variables), **variables(workload, dict(instance.ports)), MARKER: instance.id}
        user = account(self._instances.path(instance.id), instance.uid)
        defaults = thread_variables(workload.resources, given)
        home = python_home(release.environment)
        confinement = Confinement(
            uid=instance.uid,
            groups=instance.groups,
            allow=frozenset(instance.allow),
            resources=replace(workload.resources, cpu_set=instance.cores),
        )
        return Launch(
            instance=instance,
            layout=lay_out(workload, release, [*belongings.binds, *user], own, defaults),
            confinement=confinement,
            shown=(home,) if home is not None else (),
        )


def _own_copy(release: Release, folder: Path, uid: int | None) -> Release:
    """The same with files that the workload may change, and that go with it. Its environment stays the shared one."""
    copy = folder / "root"
    for _, name in release.description.places:
        if name != ENVIRONMENT:
            shutil.copytree(release.folder / name, copy / name)
    (copy / ENVIRONMENT).symlink_to(release.environment)
    if uid is not None:
        for path in (copy, *copy.rglob("*")):
            os.chown(path, uid, uid, follow_symlinks=False)
    return replace(release, folder=copy, writable=True)
