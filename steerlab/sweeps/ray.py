"""Workers on a Ray cluster: each holds the model and says units as they come; whoever dies is
replaced."""

import contextlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from steerlab.core.errors import SteerlabError
from steerlab.sweeps.cell import Batch
from steerlab.sweeps.runner import Runner, run_locally

DEATHS = 3  # of workers over one unit, before its cells count as failed


@dataclass(frozen=True)
class Ray:
    """Say units on the actors of a Ray cluster, one unit each at a time.

    `address`: "auto" (the cluster that this machine belongs to, or else a local one), "local", or a
    cluster's. `workers`: how many actors; by default one for each GPU of the cluster, or where
    there is none, for each `cpus` cores. `cpus` and `gpus` are what one actor takes; it computes
    with as many threads. The units, and so the plan of batches, are those of a run in one process.
    A unit whose worker died is given to a new one.
    """

    address: str = "auto"
    workers: int | None = None
    cpus: int = 1
    gpus: float | None = None

    def __post_init__(self) -> None:
        if (self.workers is not None and self.workers < 1) or self.cpus < 1 or (self.gpus or 0) < 0:
            raise SteerlabError(
                f"{self.workers} workers of {self.cpus} cores and {self.gpus} GPUs were asked for; "
                "give 1 or more "
                "workers and cores, and no negative number of GPUs"
            )

    def __call__(
        self, runner: Runner, units: Iterable[Batch]
    ) -> Iterator[tuple[Batch, dict[str, Any]]]:
        """The units' records, as they are done."""
        with _connected(self.address) as ray:
            yield from _Crew(ray, self, runner).work(iter(units))


class _Crew:
    """The actors of one run."""

    def __init__(self, ray: Any, told: Ray, runner: Runner) -> None:
        self.ray, self.cpus = ray, told.cpus
        gpus = ray.cluster_resources().get("GPU", 0)
        self.gpus = (1 if gpus else 0) if told.gpus is None else told.gpus
        room = gpus / self.gpus if self.gpus else ray.cluster_resources().get("CPU", 1) / told.cpus
        self.count = told.workers or max(1, int(room))
        # Each worker loads the model itself, where the unpickling says so, and knows nothing of
        # files and claims.
        self.recipe = ray.put(replace(runner, folder=None, workers=run_locally))
        self.maker = ray.remote(num_cpus=told.cpus, num_gpus=self.gpus)(_Worker)
        self.dead = (
            ray.exceptions.RayActorError,
            ray.exceptions.WorkerCrashedError,
            ray.exceptions.OutOfMemoryError,
        )

    def work(self, units: Iterator[Batch]) -> Iterator[tuple[Batch, dict[str, Any]]]:
        actors = self._hire(self.count)
        deaths: Counter[str] = Counter()
        again: list[Batch] = []
        running: dict[Any, tuple[Any, Batch]] = {}
        idle = list(actors)
        try:
            while True:
                while idle and (unit := again.pop() if again else next(units, None)):
                    actor = idle.pop()
                    running[actor.run_batch.remote(unit)] = (actor, unit)
                if not running:
                    return
                done, _ = self.ray.wait(list(running), num_returns=1)
                actor, unit = running.pop(done[0])
                try:
                    record = self.ray.get(done[0])
                except self.dead as error:
                    deaths[unit.key] += 1
                    actors.remove(actor)
                    idle += (fresh := self._hire(1))
                    actors += fresh
                    if deaths[unit.key] < DEATHS:
                        again.append(unit)
                        continue
                    told = f"its worker died {DEATHS} times: {str(error).splitlines()[0]}"
                    record = {
                        "unit": unit.key,
                        "rows": {},
                        "failed": dict.fromkeys(unit.cells, told),
                    }
                except self.ray.exceptions.RayTaskError as error:
                    raise error.cause from None
                else:
                    idle.append(actor)
                yield unit, record
        finally:
            for actor in actors:
                self.ray.kill(actor)

    def _hire(self, count: int) -> list[Any]:
        actors = [self.maker.remote(self.recipe, self.cpus) for _ in range(count)]
        try:
            self.ray.get([actor.ready.remote() for actor in actors])
        except self.ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, SteerlabError):
                raise cause from None
            raise SteerlabError(
                f"a Ray worker did not start: {str(error).strip().splitlines()[-1]}"
            ) from error
        return actors


class _Worker:
    """A process that holds a bench."""

    def __init__(self, runner: Runner, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.runner = runner

    def ready(self) -> int:
        return os.getpid()

    def run_batch(self, unit: Batch) -> dict[str, Any]:
        return self.runner.run_batch(unit)


@contextlib.contextmanager
def _connected(address: str) -> Iterator[Any]:
    """Ray, connected; what was connected before stays so."""
    try:
        import ray
    except ImportError as error:
        raise SteerlabError("Ray is not installed; install steerlab[ray]") from error
    ours = not ray.is_initialized()
    if ours:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        try:
            if address == "auto":
                with contextlib.suppress(ConnectionError):
                    ray.init(address="auto", **options)
            elif address != "local":
                ray.init(address=address, **options)
            if not ray.is_initialized():
                ray.init(address="local", include_dashboard=False, **options)
        except (ConnectionError, ValueError, RuntimeError) as error:
            told = str(error).strip().splitlines()[0]
            raise SteerlabError(
                f"there is no Ray cluster at {address!r} ({told}); start one with `ray start "
                "--head`, or give auto"
            ) from error
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()
