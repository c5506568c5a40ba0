"""What a build needs of this machine to reach the network: proxies, package indexes, certificates.

It is given to RUN steps as build secrets, which are mounted during a step and are in no layer, history or
configuration. `templates/parts/host.j2` is the other side.
"""

import configparser
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

ENV_SECRET = "longshore-env"
CA_SECRET = "longshore-ca"
APT_SECRET = "longshore-apt"
# The same for steps of the user.
STEPS_ENV_SECRET = "longshore-steps-env"
STEPS_APT_SECRET = "longshore-steps-apt"
UV_SECRET = "longshore-uv"
# Where a step finds them: on the container's own file system of devices, where a mount leaves no trace in a layer. So a
# layer is the same with these secrets and without.
SECRETS_FOLDER = "/dev/longshore"
CA_PATH = f"{SECRETS_FOLDER}/ca"

PROXY_VARIABLES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy")
CA_VARIABLES = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
SYSTEM_BUNDLES = (Path("/etc/ssl/certs/ca-certificates.crt"), Path("/etc/pki/tls/certs/ca-bundle.crt"))
# The settings of pip that say where packages are; local folders (find-links) do not exist during a step.
PIP_KEYS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "retries")
UV_VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_INSECURE_HOST",
                "UV_HTTP_TIMEOUT", "UV_INDEX_STRATEGY")  # fmt: skip
# The settings of apt that a step needs too. No paths of this machine.
APT_SETTING = re.compile(
    r"^Acquire::((https?|ftp)::(Proxy(::[\w.-]+)?|Timeout)|Retries|Check-Valid-Until|Check-Date|ForceIPv[46]) "
)


@dataclass(frozen=True)
class HostSettings:
    """Environment variables and files for RUN steps, and the texts that must not be seen in a log."""

    environment: Mapping[str, str] = field(default_factory=dict)
    ca_bundle: Path | None = None
    apt_config: str = ""

    def environment_script(self) -> str:
        """Shell text that a step reads in."""
        return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in sorted(self.environment.items()))

    def native_environment(self) -> dict[str, str]:
        """The same for a program that runs on this machine itself, where certificates lie elsewhere."""
        bundle = "" if self.ca_bundle is None else str(self.ca_bundle)
        found = {name: value.replace(CA_PATH, bundle) for name, value in self.environment.items()}
        return {name: value for name, value in found.items() if name != "APT_CONFIG"}

    def for_steps(self) -> "HostSettings":
        """What steps of the user get of it: no address with a name or password, but for the proxy's, without which they
        reach nothing."""
        apt = "".join(line for line in self.apt_config.splitlines(keepends=True) if "@" not in line)
        shown = {
            name: value
            for name, value in self.environment.items()
            if name.lower() in PROXY_VARIABLES or "@" not in value
        }
        if not apt:
            shown.pop("APT_CONFIG", None)
        return replace(self, environment=shown, apt_config=apt)

    def hidden(self) -> tuple[str, ...]:
        """Passwords and user names in URLs, longest first."""
        found = set(_credentials(self.apt_config))
        for value in self.environment.values():
            found.update(_credentials(value))
        return tuple(sorted(found, key=lambda text: (-len(text), text)))


def read_host_settings(
    environ: Mapping[str, str], pip_files: tuple[Path, ...], apt_dump: str, ca_bundle: Path | None
) -> HostSettings:
    """The settings of this machine. `apt_dump` is what `apt-config dump` prints; `ca_bundle` overrides the system's."""
    bundle = ca_bundle or _ca_bundle(environ)
    result = {**_proxies(environ), **_indexes(_pip_settings(environ, pip_files))}
    result.update({name: environ[name] for name in UV_VARIABLES if environ.get(name)})
    apt = "".join(f"{line}\n" for line in apt_dump.splitlines() if APT_SETTING.match(line))
    if bundle is not None:
        result.update(dict.fromkeys(CA_VARIABLES, CA_PATH))
        apt += f'Acquire::https::CAInfo "{CA_PATH}";\n'
    if apt:
        result["APT_CONFIG"] = f"{SECRETS_FOLDER}/apt"
    return HostSettings(result, bundle, apt)


def pip_config_files(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Where pip looks, in its order: later files win. https://pip.pypa.io/en/stable/topics/configuration/"""
    home = Path(environ.get("HOME") or "/root")
    config_home = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    xdg = [Path(folder) / "pip/pip.conf" for folder in (environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":")]
    files = [*xdg, Path("/etc/pip.conf"), home / ".pip/pip.conf", config_home / "pip/pip.conf"]
    if own := environ.get("PIP_CONFIG_FILE"):
        return () if own == os.devnull else (*files, Path(own))
    return tuple(files)


def _proxies(environ: Mapping[str, str]) -> dict[str, str]:
    """Both spellings of each, since programs differ in which one they read."""
    found = {}
    for name in PROXY_VARIABLES:
        if value := environ.get(name) or environ.get(name.upper()):
            found[name] = found[name.upper()] = value
    return found


def _ca_bundle(environ: Mapping[str, str]) -> Path | None:
    named = [Path(environ[name]) for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE") if environ.get(name)]
    return next((path for path in (*named, *SYSTEM_BUNDLES) if path.is_file()), None)


def _pip_settings(environ: Mapping[str, str], pip_files: tuple[Path, ...]) -> dict[str, str]:
    settings: dict[str, str] = {}
    for path in pip_files:
        parser = configparser.RawConfigParser()
        try:
            parser.read(path)
        except (configparser.Error, UnicodeDecodeError):
            continue
        for section in ("global", "install"):
            if parser.has_section(section):
                settings.update({key: " ".join(value.split()) for key, value in parser.items(section) if value})
    for key in PIP_KEYS:
        if value := environ.get("PIP_" + key.upper().replace("-", "_")):
            settings[key] = value
    # pip's option has two names.
    other_name = settings.get("default-timeout") or environ.get("PIP_DEFAULT_TIMEOUT")
    if other_name and "timeout" not in settings:
        settings["timeout"] = other_name
    return {key: settings[key] for key in PIP_KEYS if key in settings}


def _indexes(pip: Mapping[str, str]) -> dict[str, str]:
    """pip's settings for pip itself and, under its own names, for uv."""
    result = {"PIP_" + key.upper().replace("-", "_"): value for key, value in pip.items()}
    for key, variable in (("index-url", "UV_DEFAULT_INDEX"), ("extra-index-url", "UV_INDEX"),
                          ("trusted-host", "UV_INSECURE_HOST"), ("timeout", "UV_HTTP_TIMEOUT")):  # fmt: skip
        if key in pip:
            result[variable] = pip[key]
    if "extra-index-url" in pip:
        # As pip does: the best version of all indexes, not the first index that knows the name.
        result["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    if "proxy" in pip:
        result.setdefault("https_proxy", pip["proxy"])
    return result


def _credentials(text: str) -> Iterator[str]:
    for url in re.findall(r"[a-z][a-z0-9+.-]*://[^\s\"']+", text):
        parts = urlsplit(url)
        yield from (secret for secret in (parts.password,) if secret)
        # A user name alone is a token: https://TOKEN@index.example/simple
        if parts.username and not parts.password:
            yield parts.username
        yield from (unquote(secret) for secret in (parts.password,) if secret and unquote(secret) != secret)
