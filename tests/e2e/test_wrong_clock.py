"""A device whose clock is twelve years ahead after a power cut, as it is while its certificate is to be renewed."""

import asyncio
import time
from pathlib import Path

import pytest
from cryptography import x509

from controller.settings import Devices
from edge_agent.runtime.identity import load_identity
from longshore.v1 import deployment_pb2
from tests.support.site import Site, fetch, running_site, spec_text
from tests.support.waiting import eventually
from tests.support.wrong_clock import YEAR, WrongClock

pytestmark = [pytest.mark.podman, pytest.mark.slow]
LIFE = 180.0


def certificate_of(site: Site) -> x509.Certificate:
    return x509.load_pem_x509_certificate(load_identity(site.folder / "agent").certificate_file.read_bytes())


async def answers(site: Site, answer: deployment_pb2.GetDeploymentResponse, expected: str) -> None:
    """Returns once the service does, with no word from the controller."""
    end = time.monotonic() + 60
    while await fetch(answer) != expected:
        assert time.monotonic() < end, site.logs()
        await asyncio.sleep(0.1)


async def test_services_run_meanwhile_and_all_goes_on_once_the_clock_is_set(tmp_path: Path) -> None:
    clock = WrongClock(tmp_path)
    async with running_site(tmp_path, devices=Devices(certificate_days=LIFE / 86400)) as site:
        deployment = await site.deploy(spec_text("steady", host=8080, ANSWER="steady"))
        ready, first = await site.reaches(deployment, "READY"), certificate_of(site)
        await site.device.power_cut()
        assert site.agent is not None
        await site.agent.wait()

        await site.device.boot()
        clock.set(12 * YEAR)
        await site.start_agent(clock.env)
        await answers(site, ready, "steady")
        log = site.folder / "agent.log"
        said = "the certificate of the controller at "
        await asyncio.to_thread(eventually, lambda: said in log.read_text(), seconds=30)
        # Until it is to be renewed, which is what the test is about.
        due = first.not_valid_after_utc.timestamp() - LIFE / 3 + 1
        await asyncio.sleep(max(0.0, due - time.time()))
        assert certificate_of(site).serial_number == first.serial_number

        clock.set(0)
        await asyncio.to_thread(
            eventually, lambda: certificate_of(site).serial_number != first.serial_number, seconds=LIFE / 3
        )
        deployment = await site.deploy(spec_text("steady", host=8080, ANSWER="changed"))
        assert await fetch(await site.reaches(deployment, "READY")) == "changed"
