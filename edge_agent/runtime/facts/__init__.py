"""What an agent knows of its machine: read from files below a root, which tests replace by those of other machines."""

from edge_agent.runtime.facts.profiles import likely_profile
from edge_agent.runtime.facts.telling import device_facts

__all__ = ["device_facts", "likely_profile"]
