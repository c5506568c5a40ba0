"""Speaks to TANGO's Project Manager as one of its deployment modules, and to the controller as any client does."""
