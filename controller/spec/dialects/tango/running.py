"""How a file of TANGO runs: network, resources, mounts, and the shared folder of a cluster."""

import re

from controller.spec.dialects.draft import Draft, Given, Section, said
from controller.spec.tree import scalar_value

PORTS = ("deploy", "network", "ports")
NETWORK = ("service_host_ip", "service_host_port", "service_container_port")
K8S = ("nfsip", "nfs_ip", "nfspath", "nfs_path")
# Slots of Backend.AI: "cuda.device", "cuda.shares".
SLOT = re.compile(r"([a-z][a-z0-9-]*)\.(device|shares)")
_DOCKER_SIZE = re.compile(r"([0-9]+)([kmgKMG])")
_UNITS = {"k": "KiB", "m": "MiB", "g": "GiB"}


def read_network(draft: Draft, deploy: Section) -> bool:
    """Writes `deploy.network.ports`; answers whether there are any."""
    if not isinstance(deploy.rest.get("network"), dict):
        return False
    network = Section(draft, deploy.rest["network"], (*deploy.at, "network"))
    address, host, container = (network.take(name) for name in NETWORK)
    deploy.rest["network"] = network.rest
    if not any(not_empty is not None for not_empty in network.rest.values()):
        del deploy.rest["network"]
    if address is not None:
        draft.understood(address.at, f"'{address.text}' is left out: a port is published on the device's own addresses")
    inside = container or host
    if inside is None:
        return bool(network.rest.get("ports"))
    port = {"name": "http", "container": scalar_value(inside.text)}
    draft.put(PORTS, [port], inside.at)
    if host is not None:
        port["host"] = scalar_value(host.text)
        draft.origins[(*PORTS, 0, "host")] = (host.at, False)
    draft.understood(
        inside.at, f"the port {inside.text} is called http; it is ready once a connection is accepted there"
    )
    return True


def take_gpus(draft: Draft, deploy: Section) -> Given | None:
    """Takes from `deploy.resources` how many GPUs are asked for, and writes the rest in the units of version 1."""
    if not isinstance(deploy.rest.get("resources"), dict):
        return None
    resources = Section(draft, deploy.rest["resources"], (*deploy.at, "resources"))
    _cores(draft, resources.take("cpu"))
    _memory(draft, resources.take("memory"))
    gpus = resources.take("gpu")
    for name in [name for name in resources.rest if SLOT.fullmatch(name)]:
        gpus = _slot(draft, name, resources.take(name)) or gpus
    deploy.rest["resources"] = resources.rest
    if not resources.rest:
        del deploy.rest["resources"]
    return gpus


def _slot(draft: Draft, name: str, given: Given | None) -> Given | None:
    if given is None or scalar_value(given.text) == 0:
        return None
    if name == "cuda.device":
        return given
    if name == "cuda.shares":
        draft.understood(given.at, "accelerators are not shared: the service gets a whole one")
        return Given(1, given.at)
    near = "the nearest is cuda.device, a GPU of NVIDIA; or leave it out, for the processor"
    draft.refuse(given.at, f"no target profile has such an accelerator; {near}")
    return None


def _cores(draft: Draft, given: Given | None) -> None:
    if given is not None:
        value = scalar_value(given.text) if isinstance(given.value, str) else given.value
        draft.put(("deploy", "resources", "cpu"), value, given.at)


def _memory(draft: Draft, given: Given | None) -> None:
    if given is None:
        return
    value = scalar_value(given.text) if isinstance(given.value, str) else given.value
    size: object = given.value
    if isinstance(value, int | float) and not isinstance(value, bool):
        size = f"{said(value)}MiB"
    elif isinstance(value, str) and (match := _DOCKER_SIZE.fullmatch(value)):
        size = f"{match[1]}{_UNITS[match[2].lower()]}"
    if size != given.value:
        draft.understood(given.at, f"is read as {str(size)[:60]}")
    draft.put(("deploy", "resources", "memory"), size, given.at)


def read_mounts(draft: Draft, deploy: Section) -> None:
    """Writes `deploy.mounts`, which can be written to, as there."""
    given = deploy.take("mount")
    entries = [] if given is None else given.entries
    for entry in entries:
        if not isinstance(entry.value, dict):
            draft.refuse(entry.at, "expected a mapping with src and dst")
    mounts = [entry for entry in entries if isinstance(entry.value, dict)]
    draft.add(("deploy", "mounts"), [Given({"read_only": False, **entry.value}, entry.at) for entry in mounts])
    for index, entry in enumerate(mounts):
        draft.origins[("deploy", "mounts", index)] = (entry.at, True)
        draft.understood(entry.at, "is read as one of deploy.mounts, with read_only: false")


def read_cluster(draft: Draft, deploy: Section) -> None:
    """A cluster's shared folder is not there on a device."""
    cluster = deploy.section("k8s")
    found = [given for given in (cluster.take("nfsip", "nfs_ip"), cluster.take("nfspath", "nfs_path")) if given]
    cluster.refuse_rest(K8S)
    if found:
        message = (
            "the shared folder is left out: the files beside this one are built in; what devices mount themselves "
        )
        draft.understood(found[0].at, f"{message}can be named under deploy.mounts")
