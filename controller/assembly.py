"""What the controller builds with, put together from its settings."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from controller.builds.bases import Base
from controller.builds.builder import ImageBuilder
from controller.builds.bundles import BundleBuilder, WheelSmith
from controller.builds.hosts import Abilities, BuilderHost, BuilderPool, Place
from controller.builds.machine import Machine
from controller.builds.model import OnLine, RegistryAccess
from controller.builds.own_place import OwnPlace
from controller.builds.podman import Podman
from controller.builds.pushed import OnPushed
from controller.builds.remote import RemotePlace
from controller.builds.remote_keeping import DAY, MIB, HostPolicy
from controller.builds.settings import BuilderSettings
from controller.builds.targets import TargetProfile
from controller.builds.tunnels import SshTunnel, TlsTunnel, Tunnel
from controller.builds.uploads import UploadStore
from controller.settings import BuilderHost as HostSettings
from controller.settings import Settings
from controller.setup import DataFolder


def builder_pool(
    settings: Settings,
    folder: DataFolder,
    uploads: UploadStore,
    access: RegistryAccess,
    profiles: dict[str, TargetProfile],
    on_pushed: OnPushed,
) -> BuilderPool:
    """The builder of a controller: this machine and the hosts that the settings name."""
    own = builder_settings(settings)
    builder = ImageBuilder(folder.root / "builder", uploads, access, own, profiles, on_pushed)
    hosts = [
        BuilderHost(one.name, remote_place(one, settings, folder, builder), one.slots) for one in settings.builds.hosts
    ]
    if settings.builds.local:
        hosts.insert(0, BuilderHost("local", OwnPlace(builder), settings.builds.parallel))

    async def on_machine(profile: TargetProfile, on_line: OnLine, work: Callable[[Machine], Awaitable[None]]) -> None:
        await pool.on_machine(profile, on_line, work)

    smith = WheelSmith(builder, on_machine)
    bundles = BundleBuilder(folder.root / "bundles", uploads, access, own, profiles, smith, on_pushed)
    pool = BuilderPool(builder, hosts, profiles, bundles, settings.builds.parallel)
    return pool


def builder_settings(settings: Settings) -> BuilderSettings:
    builds = settings.builds
    return BuilderSettings(
        builds.base_cache, builds.bootstrap_mirror, builds.ca_bundle, base_registries=builds.base_registries,
        network=builds.network,
    )  # fmt: skip


def remote_place(host: HostSettings, settings: Settings, folder: DataFolder, builder: ImageBuilder) -> Place:
    journal = folder.root / "builder" / "hosts" / host.name
    policy = _host_policy(settings)
    find = builder.operators_base
    return RemotePlace(host.url, _tunnel(host, folder), host.platforms, builder.podman, journal, find, policy)


def _host_policy(settings: Settings) -> HostPolicy:
    keeping = settings.housekeeping
    return HostPolicy(
        keeping.enabled, keeping.cache_days * DAY, int(keeping.cache_gib * 2**30), settings.min_free_mib * MIB
    )


async def ask_host(host: HostSettings, folder: DataFolder, scratch: Path) -> Abilities:
    """What a host can build for, asked without disturbing a running controller. Raises BuildFailed."""

    async def no_helper(architecture: str) -> Base:
        raise AssertionError("nothing is noted of builds, so there is nothing to see to")

    own, tunnel = Podman(scratch), _tunnel(host, folder)
    return await RemotePlace(host.url, tunnel, host.platforms, own, scratch / "none", no_helper).probe()


def _tunnel(host: HostSettings, folder: DataFolder) -> Tunnel:
    if host.url.startswith("ssh://"):
        return SshTunnel(host.url, host.ssh_key, host.known_hosts)
    return TlsTunnel(
        host.url,
        host.ca_file or folder.ca / "ca.crt",
        host.cert_file or folder.tls / "controller.crt",
        host.key_file or folder.tls / "controller.key",
    )
