"""The controller's side of the broker."""
