"""A real registry with the controller's token endpoint beside it, for tests that need no whole controller."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from controller.builds.model import RegistryAccess
from controller.local.process import free_port
from controller.local.registry import LocalRegistry
from controller.local.stack import LocalStack
from controller.pki import CertificateAuthority
from controller.store.access import Principal, Role
from controller.web.registry_tokens import CONTROLLER, RegistryTokens
from controller.web.server import WebServer


@dataclass
class RegistryUnderTest:
    """`address` is host:port; `ca_file` verifies it; it keeps its files below `folder`."""

    folder: Path
    registry: LocalRegistry
    ca: CertificateAuthority
    ca_file: Path
    tokens: RegistryTokens
    pullable: set[str]

    @property
    def address(self) -> str:
        return self.registry.address

    def stored(self) -> set[str]:
        """All that it keeps: tags, manifests, blobs and unfinished pushes."""
        return stored_in(self.folder)

    def push_credentials(self) -> tuple[str, str]:
        """User and password that may pull and push everything."""
        credential = self.tokens.credential(CONTROLLER)
        return credential.username, credential.password

    def device_credentials(self, device_id: str) -> tuple[str, str]:
        """User and password that may pull what is in `pullable` (repository names without the address)."""
        credential = self.tokens.credential(Principal(device_id, Role.DEVICE))
        return credential.username, credential.password


def access_to(stack: LocalStack) -> RegistryAccess:
    """The way to a stack's registry, with what its controller pushes with."""

    def credentials() -> tuple[str, str]:
        credential = RegistryTokens(stack.folder.registry_tokens).credential(CONTROLLER)
        return credential.username, credential.password

    return RegistryAccess(stack.settings.registry.address, stack.ca_file, credentials)


@asynccontextmanager
async def running_registry(folder: Path, host: str = "127.0.0.1") -> AsyncIterator[RegistryUnderTest]:
    """A registry on `host` (an address of this machine) until the block ends."""
    ca = CertificateAuthority.create(folder / "ca")
    tokens = RegistryTokens.create(folder / "tokens")
    pullable: set[str] = set()

    async def may_pull(_device_id: str) -> Collection[str]:
        return pullable

    port = free_port(host)
    certificate, key = ca.issue_server([host, "localhost"]).write(folder, "web")
    web = WebServer(tokens, may_pull)
    await web.start(host, port, certificate, key)
    realm = f"https://{host}:{port}/registry/token"
    try:
        async with LocalRegistry(folder / "registry", ca, realm, tokens.certificate_file, host=host) as registry:
            yield RegistryUnderTest(folder / "registry", registry, ca, folder / "ca" / "ca.crt", tokens, pullable)
    finally:
        await web.stop()


def stored_in(folder: Path) -> set[str]:
    """Paths of all files that the registry of this folder keeps."""
    data = folder / "data"
    return {str(path.relative_to(data)) for path in data.rglob("*") if path.is_file()}
