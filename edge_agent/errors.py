"""What a person at the keyboard is told."""


class UserError(Exception):
    """Something to be told to the person at the keyboard, in one sentence."""
