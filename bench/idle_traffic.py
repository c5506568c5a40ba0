"""What a quiet device with one ready workload costs on its network: all bytes of IP packets between it and the
controller's side.

Watched over one period of the agent's measurements, which is the longest of its rhythms but for the look at the
controller twice a day: what one such look costs is measured by one, and added by its rhythm.
"""

import asyncio
import sys
import tempfile
from pathlib import Path

from tests.support.site import Site, running_site, spec_text

REST = 60.0
MONTH = 30 * 24 * 3600.0
LOOK = """
import asyncio, sys
from pathlib import Path
from edge_agent.runtime.controller_link import ControllerLink
from edge_agent.runtime.identity import load_identity

async def look():
    link = ControllerLink(load_identity(Path(sys.argv[1])))
    await link.get_desired(0)
    await link.close()

asyncio.run(look())
"""


def main() -> str:
    with tempfile.TemporaryDirectory(prefix="longshore-bench-") as folder:
        return asyncio.run(_measure(Path(folder)))


async def _measure(folder: Path) -> str:
    from edge_agent.runtime.settings import AgentSettings

    settings = AgentSettings()
    async with running_site(folder) as site:
        deployment = await site.deploy(spec_text("idle").replace("500ms", "10s"))
        await site.reaches(deployment, "READY")
        await asyncio.sleep(REST)
        await _count(site)
        before = await _bytes(site)
        await asyncio.sleep(settings.metrics_interval)
        quiet = await _bytes(site) - before
        look = await _look(site)
    month = (quiet / settings.metrics_interval + look / settings.resync_interval) * MONTH / 1e6
    return (
        f"idle_traffic: value={month:.2f} unit=MB_per_month quiet_bytes={quiet} "
        f"seconds={settings.metrics_interval:.0f} look_bytes={look} "
        f"looks_per_day={86400 / settings.resync_interval:.0f} keepalive_s={settings.keepalive:.0f} "
        "rounds=1 (one workload, TLS, headers of IP and TCP included)"
    )


async def _count(site: Site) -> None:
    """From now on what goes between the device and its controller, broker and registry is counted. A rule without a
    target does nothing but count; iptables(8)."""
    for chain, side in (("INPUT", "-s"), ("OUTPUT", "-d")):
        await site.device.run("iptables", "-I", chain, side, site.device.gateway)


async def _bytes(site: Site) -> int:
    """So far, both ways: of IP packets, as networks that are paid by volume count them."""
    counted = 0
    for chain in ("INPUT", "OUTPUT"):
        rules = await site.device.run("iptables", "-nvxL", chain, "1")
        counted += int(rules.split()[1])
    return counted


async def _look(site: Site) -> int:
    before = await _bytes(site)
    await site.device.run(sys.executable, "-c", LOOK, str(site.folder / "agent"))
    return await _bytes(site) - before
