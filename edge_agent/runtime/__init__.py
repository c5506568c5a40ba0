"""The agent without its backend: desired state, plan, executor, checks, status, journal, channels."""
