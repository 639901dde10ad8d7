"""The one error that a user can cause, and what is said beside an answer."""

import re
import sys

# What a terminal would obey in place of showing it, and halves of surrogate pairs, which no
# encoding has. Line breaks and tabs are harmless.
_UNSEEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


class SteerlabError(Exception):
    """An error that the user can mend: its message says what was given, what is allowed and what
    to do."""


def printable(text: str) -> str:
    """A text with escapes, such as \\x1b, in place of what a terminal would obey: a message may
    repeat what a file or a server holds."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def note(message: str) -> None:
    """Say on stderr what a user should know about an answer that is given all the same."""
    print(f"steerlab: {printable(message)}", file=sys.stderr)


def first_line_of(error: BaseException) -> str:
    """The first line of an error's message, or its class where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def last_line_of(error: BaseException) -> str:
    """The last line of an error's message, which of a traceback is the error itself; or its class
    where it has none."""
    lines = str(error).strip().splitlines()
    return lines[-1][:200] if lines else type(error).__name__
