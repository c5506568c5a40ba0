"""What Podman keeps on the disk, read and mended without Podman: the overlay store of github.com/containers/storage."""
