"""One thread that runs the model, and those who wait for it in a line.

What is attached to a model acts on all that it runs, so that requests take turns: the thread that
begins an output also ends it, whoever asked.
"""

import queue
import sys
import threading
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from steerlab.core.errors import SteerlabError, first_line_of

MOST_WAITING = 32

Wanted = TypeVar("Wanted")


@dataclass(frozen=True)
class Failed:
    """Why a job came to nothing, in a sentence.

    Args:
        message: the sentence.
        ours: whether something broke inside, and not because of what was asked.
    """

    message: str
    ours: bool = False


class Full(SteerlabError):
    """As many wait already as may."""


@dataclass(frozen=True, eq=False)
class Job(Generic[Wanted]):
    """What waits to be run.

    Args:
        setting: what is to be run.
        put: is called with each event, with `Failed` where it fails, and with None at the end.
        stopped: set by whoever no longer wants it; it then ends at the next token.
    """

    setting: Wanted
    put: Callable[[Any], None]
    stopped: threading.Event = field(default_factory=threading.Event)


class Line(ABC, Generic[Wanted]):
    """A thread that does jobs; what it makes of them a subclass says, in `_work`.

    Args:
        name: of the thread.
        most: how many jobs there may be, those included that are being done; one more is refused.
    """

    def __init__(self, name: str, *, most: int) -> None:
        self.most = most
        self._jobs: queue.Queue[Job[Wanted] | None] = queue.Queue()
        self._waiting = 0
        self._closed = threading.Event()
        self._count = threading.Lock()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    @property
    def waiting(self) -> int:
        """How many jobs there are, those included that are being done."""
        return self._waiting

    def submit(self, job: Job[Wanted]) -> None:
        """Put a job in the line; raises `Full` where there is no room."""
        with self._count:
            if self._waiting >= self.most:
                raise Full(
                    f"{self._waiting} requests wait for the model already; try again in a moment"
                )
            self._waiting += 1
        self._jobs.put(job)

    def close(self) -> None:
        """Let the thread end: what it is at stops at the next token, what waits is not begun."""
        self._closed.set()
        self._jobs.put(None)

    def stops(self, job: Job[Wanted]) -> bool:
        """Whether nobody wants a job any longer."""
        return job.stopped.is_set() or self._closed.is_set()

    @abstractmethod
    def _work(self) -> None:
        """What the thread does until it is closed."""

    def _end(self, job: Job[Wanted]) -> None:
        """Say that a job is over, which makes room for another."""
        job.put(None)
        with self._count:
            self._waiting -= 1


def failure(error: Exception) -> Failed:
    """What is said of an error: a `SteerlabError`'s sentence, and of any other that something broke
    inside, with its traceback on the terminal.

    One request must not end the thread that serves all others.
    """
    if isinstance(error, SteerlabError):
        return Failed(str(error))
    traceback.print_exception(error, file=sys.stderr)
    return Failed(
        f"this setting failed inside ({type(error).__name__}: {first_line_of(error)}); the "
        "terminal has the details; try another setting",
        ours=True,
    )
