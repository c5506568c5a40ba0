"""The agent for machines without containers. Its backend has no implementation yet."""
