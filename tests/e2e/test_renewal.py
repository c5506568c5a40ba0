"""A device's certificate is renewed before it ends, while its workload runs on."""

import asyncio
import time
from pathlib import Path

import pytest
from cryptography import x509

from controller.settings import Devices
from edge_agent.runtime.identity import load_identity
from tests.support.site import Site, fetch, running_site, spec_text

pytestmark = [pytest.mark.podman, pytest.mark.xdist_group("renewal")]
LIFE = 45.0


def certificate_of(site: Site) -> x509.Certificate:
    return x509.load_pem_x509_certificate(load_identity(site.folder / "agent").certificate_file.read_bytes())


async def renewed(site: Site, first: x509.Certificate) -> x509.Certificate:
    end = time.monotonic() + LIFE
    while (second := certificate_of(site)).serial_number == first.serial_number:
        assert time.monotonic() < end, site.logs()
        await asyncio.sleep(0.2)
    return second


async def test_certificate_is_renewed_in_time_and_what_runs_is_not_touched(tmp_path: Path) -> None:
    async with running_site(tmp_path, devices=Devices(certificate_days=LIFE / 86400)) as site:
        await site.stop_agent()
        await site.start_agent(None, "--resync-interval", "3")
        deployment = await site.deploy(spec_text("steady", ANSWER="steady"))
        await site.reaches(deployment, "READY")
        before, first = await site.containers(), certificate_of(site)
        second = await renewed(site, first)
        assert second.subject == first.subject
        assert second.public_key() != first.public_key()
        # Until it is over, which is what the test is about.
        await asyncio.sleep(first.not_valid_after_utc.timestamp() + 1 - time.time())
        # By the old certificate neither would be answered any more.
        await site.stack.broker.kill()
        await site.stack.broker.start()
        await site.deploy(spec_text("steady", ANSWER="changed"))
        assert await fetch(await site.reaches(deployment, "READY")) == "changed"
        assert before
        folders = list((site.folder / "agent").glob("identity-*"))
        assert len(folders) == 1, "the old key is gone"
