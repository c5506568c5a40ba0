"""The agent for machines without containers: it runs bundles as processes of the device."""
