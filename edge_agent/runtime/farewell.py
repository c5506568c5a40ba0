"""Telling the controller that a device is none any more. Only the `leave` command imports this."""

import asyncio

from edge_agent.runtime.controller_link import ControllerError, ControllerLink, ControllerRefused
from edge_agent.runtime.identity import Identity

# What the controller answers to a device that was deleted there before.
UNKNOWN = "PERMISSION_DENIED"


def tell_controller(identity: Identity) -> str:
    """ "" once the controller knows, else a sentence about why it could not be told."""
    return asyncio.run(_tell(identity))


async def _tell(identity: Identity) -> str:
    link = ControllerLink(identity)
    try:
        await link.leave()
    except ControllerRefused as error:
        return "" if error.code == UNKNOWN else str(error)
    except ControllerError as error:
        return str(error)
    finally:
        await link.close()
    return ""
