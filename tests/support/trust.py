"""Certificates that a build trusts besides those that this machine does."""

from pathlib import Path

from controller.builds.host_settings import SYSTEM_BUNDLES


def trusted_too(ca_file: Path, folder: Path) -> Path:
    """A file in `folder` with this authority's certificate and all that this machine trusts."""
    bundle = folder / "trusted-too.crt"
    folder.mkdir(parents=True, exist_ok=True)
    known = [path.read_bytes() for path in SYSTEM_BUNDLES if path.is_file()]
    bundle.write_bytes(b"\n".join([ca_file.read_bytes(), *known]))
    return bundle
