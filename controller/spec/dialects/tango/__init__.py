"""The deployment.yaml of TANGO, ETRI's no-code framework for neural networks, in all spellings that occur."""

from controller.spec.dialects.tango.reader import KEYS, read, written_in

__all__ = ["KEYS", "read", "written_in"]
