"""What callers are told of a spec in an older form."""

import asyncio

from controller.spec.loader import warnings_of
from longshore.v1 import build_pb2

# More would be read by nobody, and would not fit into an answer of gRPC.
MOST = 100


async def spec_warnings(spec: bytes) -> list[build_pb2.SpecProblem]:
    """What was read as what, in the order of the file; of very many the first. Empty where there is nothing to read."""
    found = await asyncio.to_thread(warnings_of, spec)
    return [build_pb2.SpecProblem(**vars(warning)) for warning in found[:MOST]]
