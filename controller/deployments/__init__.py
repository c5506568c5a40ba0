"""Deployments: from a spec and a selector to what each device should run, and back to a true state."""
