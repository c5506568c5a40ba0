"""Images in a builder's storage, as builds and bases leave them."""

import io
import os
import tarfile

from controller.builds.podman import Podman


async def keep_layers(podman: Podman, build_id: str) -> None:
    """An image of 1 MB as a build leaves it."""
    await import_image(podman, build_id, f"localhost/longshore/build/x86-cpu:{build_id}")


async def import_image(podman: Podman, build_id: str, *names: str) -> str:
    """Its id."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo(build_id)
        entry.size = 2**20
        archive.addfile(entry, io.BytesIO(os.urandom(2**20)))
    path = podman.temporary / f"{build_id}.tar"
    path.write_bytes(buffer.getvalue())
    done = await podman.run("import", "-q", str(path), *names)
    assert done.returncode == 0, done.stderr
    path.unlink()
    return done.stdout.strip().splitlines()[-1].removeprefix("sha256:")


async def kept(podman: Podman) -> list[str]:
    """The tags of all images."""
    listed = await podman.run("images", "--format", "{{.Tag}}")
    return sorted(listed.stdout.split())
