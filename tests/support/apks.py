"""Small packages of apk, and an Alpine base whose apk knows no others."""

import shutil
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from controller.builds.machine import push
from controller.builds.model import RegistryAccess
from tests.support.alpine import alpine_archive
from tests.support.building import Workshop
from tests.support.package_folder import PackageFolder

# Name, version, and what it needs.
PACKAGES = (
    ("greeting", "1.0", ""),
    ("greeting", "2.0", ""),
    ("welcome", "1.0", "greeting=1.0-r0"),
    ("sudo", "1.9", ""),
)
MAKE = """
set -eu
folder=/srv/apks/x86_64; mkdir -p $folder /etc/apk/keys; cp sample.rsa.pub /etc/apk/keys/
while read -r name version needs; do
  mkdir -p files/usr/bin; printf '#!/bin/sh\\necho %s %s\\n' $name $version > files/usr/bin/$name
  chmod 755 files/usr/bin/$name
  apk mkpkg --sign-key sample.rsa --files files --output $folder/$name-$version-r0.apk --info name:$name \\
    --info version:$version-r0 --info arch:x86_64 --info license:MIT --info description:sample \\
    ${needs:+--info depends:$needs}
  rm -r files
done < packages
apk mkndx --sign-key sample.rsa --output $folder/APKINDEX.tar.gz $folder/*.apk
apk add --initdb
rm sample.rsa packages make.sh /var/log/apk.log
"""


async def make_apk_base(workshop: Workshop, repository: PackageFolder) -> str:
    """The name of a base with Alpine's apk, which made the packages of the repository."""
    archive = alpine_archive(workshop.folder / "alpine.tar")
    path = "ENV PATH=/usr/bin:/usr/sbin"
    image = workshop.podman("import", "-q", "--change", path, str(archive)).strip()
    registry = workshop.registry
    alpine = f"{registry.address}/alice/digits:alpine"
    folder = workshop.folder / "pushing"
    (folder / "scratch").mkdir(parents=True)
    access = RegistryAccess(registry.address, registry.ca_file, registry.push_credentials)
    await push(workshop.builder.podman, image, alpine, folder, access)
    listed = "".join(f"{' '.join(package)}\n" for package in PACKAGES)
    texts = {**_key_pair(), "packages": listed.encode(), "make.sh": MAKE.encode()}
    files = [await workshop.upload(name, content) for name, content in texts.items()]
    steps = ["sh make.sh", f"echo {repository.url} > /etc/apk/repositories"]
    artifact = await workshop.build(workshop.job("apks", {"base": alpine, "steps": steps}, files))
    mounted = Path(workshop.podman("image", "mount", "localhost/longshore/build/x86-cpu:apks").strip())
    try:
        shutil.copytree(mounted / "srv/apks", repository.folder)
    finally:
        workshop.podman("image", "unmount", "localhost/longshore/build/x86-cpu:apks")
    return f"{artifact.repository}@{artifact.digest}"


def _key_pair() -> dict[str, bytes]:
    key = rsa.generate_private_key(65537, 2048)
    kind = serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return {"sample.rsa": key.private_bytes(serialization.Encoding.PEM, *kind), "sample.rsa.pub": public}
