"""Debian systems made from packages without running anything of theirs, so that any architecture's takes as long."""
