"""The one error that a user can cause."""


class SteerlabError(Exception):
    """An error that the user can mend: its message says what was given, what is allowed and what
    to do."""
