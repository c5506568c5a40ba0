"""Bundles: what a device without containers installs, an OCI artifact of wheels and files: docs/design/bundles.md."""

from controller.builds.bundles.builder import BundleBuilder

__all__ = ["BundleBuilder"]
