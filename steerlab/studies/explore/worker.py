"""The thread that says what settings of the explorer say, one after another."""

from typing import final

from steerlab.studies.explore.session import Session
from steerlab.studies.explore.setting import Setting
from steerlab.studies.local.line import MOST_WAITING, Job, Line, failure


@final
class Worker(Line[Setting]):
    """Runs a session's settings in the order in which they come.

    Args:
        session: what is run; nobody else may use it while the thread lives.
        most: how many settings there may be at once; one more is refused.
    """

    def __init__(self, session: Session, *, most: int = MOST_WAITING) -> None:
        super().__init__("steerlab explorer", most=most)
        self.session = session
        self._thread.start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                if not self.stops(job):
                    self._run(job)
            except Exception as error:
                job.put(failure(error))
            finally:
                self._end(job)

    def _run(self, job: Job[Setting]) -> None:
        events = self.session.run(job.setting)
        try:
            for event in events:
                if self.stops(job):
                    break
                job.put(event)
        finally:
            events.close()  # here and now: what it holds belongs to this thread
