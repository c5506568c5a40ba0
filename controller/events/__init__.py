"""The numbered log of what changed state, and those who follow it."""
