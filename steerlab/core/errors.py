"""The one error that a user can cause."""


class SteerlabError(Exception):
    """What was given, what is allowed, what to do: the message of every error that a user can
    cause."""
