"""One thread that runs the model, and those who wait for it in a line.

A model carries one edit at a time, so that requests take turns: the thread that begins an output
also ends it, whoever asked.
"""

import queue
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

from steerlab.core.errors import SteerlabError, first_line_of
from steerlab.studies.explore.session import Event, Session
from steerlab.studies.explore.setting import Setting

MOST_WAITING = 32


@dataclass(frozen=True)
class Failed:
    """Why a setting came to no output, in a sentence."""

    message: str


@dataclass(frozen=True)
class Job:
    """A setting that waits to be run.

    Args:
        setting: what is to be run.
        put: is called with each event, with `Failed` where it fails, and with None at the end.
        stopped: set by whoever no longer wants it; it then ends at the next token.
    """

    setting: Setting
    put: Callable[[Event | Failed | None], None]
    stopped: threading.Event = field(default_factory=threading.Event)


class Worker:
    """The thread that runs a session's settings, one after another.

    Args:
        session: what is run; nobody else may use it while the thread lives.
        most: how many may wait; one more is refused.
    """

    def __init__(self, session: Session, *, most: int = MOST_WAITING) -> None:
        self.session = session
        self.most = most
        self._jobs: queue.Queue[Job | None] = queue.Queue()
        self._waiting = 0
        self._closed = threading.Event()
        self._count = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="steerlab explorer", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Put a job in the line; raises `SteerlabError` where the line is full."""
        with self._count:
            if self._waiting >= self.most:
                raise SteerlabError(
                    f"{self._waiting} requests wait for the model already; try again in a moment"
                )
            self._waiting += 1
        self._jobs.put(job)

    def close(self) -> None:
        """Let the thread end: what it is at stops at the next token, what waits is not begun."""
        self._closed.set()
        self._jobs.put(None)

    def _stops(self, job: Job) -> bool:
        return job.stopped.is_set() or self._closed.is_set()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                self._run(job)
            finally:
                with self._count:
                    self._waiting -= 1

    def _run(self, job: Job) -> None:
        try:
            if not self._stops(job):
                events = self.session.run(job.setting)
                try:
                    for event in events:
                        if self._stops(job):
                            break
                        job.put(event)
                finally:
                    events.close()  # here and now: what it holds belongs to this thread
        except SteerlabError as error:
            job.put(Failed(str(error)))
        except Exception as error:  # one request must not end the thread that serves all others
            traceback.print_exc(file=sys.stderr)
            job.put(
                Failed(
                    f"this setting failed inside ({type(error).__name__}: {first_line_of(error)}); "
                    "the terminal has the details; try another setting"
                )
            )
        finally:
            job.put(None)
