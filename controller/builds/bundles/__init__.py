"""Bundles: what a device without containers installs, an OCI artifact of wheels and files: docs/design/bundles.md."""

from controller.builds.bundles.builder import BundleBuilder
from controller.builds.bundles.sources import WheelSmith

__all__ = ["BundleBuilder", "WheelSmith"]
