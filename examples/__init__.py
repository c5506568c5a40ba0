"""Examples, and the demonstration that runs one from end to end."""
