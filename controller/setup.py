"""Makes a data folder: authority, certificates, keys, database, the first administrator's token."""

from dataclasses import dataclass
from pathlib import Path

import yaml

from controller.access import hash_secret, new_secret
from controller.errors import OperatorError
from controller.files import write_durably
from controller.local.broker import CONTROLLER as BROKER_USER
from controller.pki import CertificateAuthority
from controller.settings import FILE_NAME, Settings, save_settings, split
from controller.store import Store, open_store
from controller.store.access import Principal, Role
from controller.web.registry_tokens import RegistryTokens


class AlreadySetUp(OperatorError):
    """There is an installation in this folder."""


@dataclass(frozen=True)
class DataFolder:
    """Where everything of one controller lies."""

    root: Path

    @property
    def ca(self) -> Path:
        return self.root / "ca"

    @property
    def tls(self) -> Path:
        return self.root / "tls"

    @property
    def registry_tokens(self) -> Path:
        return self.root / "registry-tokens"

    @property
    def secrets_key(self) -> Path:
        """What seals the values of secrets in the database."""
        return self.root / "secrets.key"

    @property
    def materials(self) -> Path:
        return self.root / "materials"

    @property
    def database(self) -> Path:
        return self.root / "controller.db"

    @property
    def admin_context(self) -> Path:
        return self.root / "admin-context.yml"


def set_up(root: Path, settings: Settings) -> DataFolder:
    """A new installation. Raises AlreadySetUp. What a killed call left behind is completed by the next one."""
    folder = DataFolder(root)
    if (root / FILE_NAME).exists():
        raise AlreadySetUp(f"{root / FILE_NAME} exists already")
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    root.chmod(0o700)
    ca = CertificateAuthority.load(folder.ca) if (folder.ca / "ca.crt").exists() else _new_ca(folder)
    if not (folder.registry_tokens / "ca.crt").exists():
        RegistryTokens.create(folder.registry_tokens)
    ca.issue_server(_names(settings)).write(folder.tls, "server")
    ca.issue_client(BROKER_USER).write(folder.tls, "controller")
    store = open_store(folder.database)
    store.transact_now(lambda tx: tx.access.remove_api_token("admin"))
    _write_context(folder.admin_context, add_token(store, Principal("admin", Role.ADMIN)), ca, settings)
    store.close()
    # Last: its presence says that all the rest is there.
    save_settings(root, settings)
    return folder


def add_token(store: Store, principal: Principal) -> str:
    """A new API token's secret. Raises AlreadyExists where the name is taken."""
    secret = new_secret()
    store.transact_now(lambda tx: tx.access.add_api_token(hash_secret(secret), principal))
    return secret


def context_text(token: str, ca: CertificateAuthority, settings: Settings) -> str:
    """What the `longshore` command needs to reach this controller, as its context file."""
    context = {"address": settings.public.address, "token": token, "ca": ca.certificate_pem}
    return yaml.safe_dump(context, sort_keys=False)


def _write_context(path: Path, token: str, ca: CertificateAuthority, settings: Settings) -> None:
    write_durably(path, context_text(token, ca, settings).encode(), 0o600)


def _new_ca(folder: DataFolder) -> CertificateAuthority:
    return CertificateAuthority.create(folder.ca)


def _names(settings: Settings) -> list[str]:
    """Every name under which somebody reaches this controller."""
    told = [split(endpoint.address)[0] for endpoint in (settings.public, settings.agents, settings.web)]
    return list(dict.fromkeys([*told, "localhost", "127.0.0.1"]))
