"""Enrolled machines: how they come, what they are wished to run, what they report."""
