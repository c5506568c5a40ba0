"""Broker and registry beside the controller: kept running, and told from others that have their address."""

import socket
from pathlib import Path

import pytest
import structlog
import yaml

from controller.local import registry as registry_module
from controller.local.broker import LocalBroker
from controller.local.process import StartFailed, accepts_connections
from controller.local.registry import LocalRegistry
from controller.local.supervision import kept_running
from controller.pki import CertificateAuthority
from controller.web.registry_tokens import RegistryTokens
from tests.support.async_waiting import until
from tests.support.small_disk import small_disk


@pytest.fixture
def ca(tmp_path: Path) -> CertificateAuthority:
    return CertificateAuthority.create(tmp_path / "ca")


async def test_a_registry_that_is_slow_after_its_garbage_was_collected_comes_back(
    tmp_path: Path, ca: CertificateAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = RegistryTokens.create(tmp_path / "tokens")
    # As after a first push.
    blobs = tmp_path / "registry" / "data" / registry_module.BLOBS
    blobs.mkdir(parents=True)
    (blobs.parent / "repositories").mkdir()
    registry = LocalRegistry(tmp_path / "registry", ca, "https://localhost:1/token", tokens.certificate_file)
    async with kept_running(registry):
        monkeypatch.setattr(registry_module, "RESTART_DEADLINE", 0.0)
        with pytest.raises(StartFailed, match="does not answer after 0 s"):
            await registry.collect_garbage()
        await until(lambda: accepts_connections(registry.host, registry.port), seconds=30)
        settings = yaml.safe_load((tmp_path / "registry" / "registry.yml").read_text())
        assert settings["storage"]["maintenance"]["readonly"] == {"enabled": False}
        # And what it collects later does not end it.
        monkeypatch.setattr(registry_module, "RESTART_DEADLINE", 60.0)
        await registry.collect_garbage()
        assert accepts_connections(registry.host, registry.port)
    assert not accepts_connections(registry.host, registry.port)


async def test_a_broker_does_not_take_another_program_for_itself(tmp_path: Path, ca: CertificateAuthority) -> None:
    broker = LocalBroker(tmp_path / "broker", ca)
    with (
        socket.create_server((broker.host, broker.port)),
        pytest.raises(StartFailed, match=f"cannot listen on {broker.address}: another program does"),
    ):
        await broker.start()


async def test_a_server_that_could_not_even_be_started_is_tried_again(tmp_path: Path, ca: CertificateAuthority) -> None:
    broker = LocalBroker(tmp_path / "broker", ca)
    log = tmp_path / "broker" / "broker.log"
    async with kept_running(broker):
        with structlog.testing.capture_logs() as told:
            log.rename(log.with_suffix(".before"))
            log.mkdir()
            await broker.kill()
            # Twice: the first time may not be the last.
            await until(lambda: [each["log_level"] for each in told].count("error") == 2, seconds=30)
        log.rmdir()
        await until(lambda: accepts_connections(broker.host, broker.port), seconds=30)


async def test_of_a_registry_to_which_nothing_was_pushed_nothing_is_collected(
    tmp_path: Path, ca: CertificateAuthority
) -> None:
    tokens = RegistryTokens.create(tmp_path / "tokens")
    async with LocalRegistry(tmp_path / "registry", ca, "https://localhost:1/token", tokens.certificate_file) as made:
        await made.collect_garbage()
        assert accepts_connections(made.host, made.port)


@pytest.mark.podman
async def test_a_broker_whose_disk_is_full_comes_back_with_its_configuration(
    tmp_path: Path, ca: CertificateAuthority
) -> None:
    with small_disk(tmp_path / "disk", 8) as disk:
        async with kept_running(LocalBroker(disk.path / "broker", ca)) as broker:
            disk.fill()
            await broker.kill()
            await until(lambda: accepts_connections(broker.host, broker.port), seconds=30)
