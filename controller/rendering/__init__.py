"""Containerfiles by Jinja2 from `templates/`."""

from controller.rendering.containerfile import ImagePlan, render
from controller.rendering.packages import PackageList
from controller.rendering.quoting import CannotQuote

__all__ = ["CannotQuote", "ImagePlan", "PackageList", "render"]
