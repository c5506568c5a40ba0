"""Project volumes: models and data in versions that are named by digest."""
