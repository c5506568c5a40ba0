"""Alembic migrations, run at each start of the controller."""
