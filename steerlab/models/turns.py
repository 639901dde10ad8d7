"""One thread at a time: what is attached to a network acts on whatever the network runs."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from steerlab.core.errors import SteerlabError

_LOOK = 0.2  # seconds between two looks at whether a thread that waits could wait for ever


class Turns:
    """Whose turn it is to run a model.

    A call of the package takes the model for as long as it works, and other threads' calls wait.
    An edit that a user has put on by a `with` is there for as long as the user likes, perhaps while
    waiting for another thread: that one is refused, as it would wait for ever.

    They belong to the network, as several models may be views of it.
    """

    _of: ClassVar[WeakKeyDictionary[Any, "Turns"]] = WeakKeyDictionary()

    @classmethod
    def of(cls, network: Any) -> "Turns":
        """Those of a network."""
        return cls._of.setdefault(network, cls())

    def __init__(self) -> None:
        self.attachments = 0  # how many `opened` are on
        self._lock = threading.RLock()
        self._owner: int | None = None
        self._depth = 0
        self._open = False  # whether it is held by a user's `with`

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Take the model for a piece of work that ends by itself."""
        while not self._lock.acquire(timeout=_LOOK):
            if self._open:
                raise self._refusal()
        self._owner = threading.get_ident()
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth:
                self._owner = None
            self._lock.release()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Take the model for a `with`: a user's, unless a piece of work is on."""
        with self.taken():
            users = self._depth == 1
            self._open = self._open or users
            try:
                yield
            finally:
                if users:
                    self._open = False

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Take the model for a `with` in which something is attached to it."""
        with self.held():
            self.attachments += 1
            try:
                yield
            finally:
                self.attachments -= 1

    def need_own(self) -> None:
        """Raise for a thread that runs the network while another one has attached something."""
        if self._owner not in (None, threading.get_ident()):
            raise self._refusal()

    def _refusal(self) -> SteerlabError:
        return SteerlabError(
            "another thread has an edit on this model, and an edit acts on all that a model runs; "
            "leave its `with` first, give edit= to the call in place of the `with`, or load the "
            "model once more for each thread"
        )
