"""Run batches on a Ray cluster: each worker holds the model, and a dead worker is replaced."""

import contextlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from steerlab.core.errors import SteerlabError, first_line_of, last_line_of
from steerlab.core.languages import Language, add_all, added
from steerlab.sweeps.cell import Batch
from steerlab.sweeps.runner import Runner, run_locally

# How many workers may die at one batch before its cells count as failed: what kills three of them,
# such as a lack of memory, will kill a fourth.
DEATHS = 3


@dataclass(frozen=True)
class Ray:
    """Run batches on the actors of a Ray cluster, one batch each at a time.

    The batches are those of a run in one process, so that the numbers are too. A batch whose worker
    died is given to a new one.

    Args:
        address: "auto" (the cluster that this machine belongs to, or else a local one), "local", or
            a cluster's address.
        workers: how many actors; by default one for each GPU of the cluster, or where there is
            none, for each `cpus` cores.
        cpus: the cores that one actor takes; it computes with as many threads.
        gpus: the GPUs that one actor takes; by default one where the cluster has any.
    """

    address: str = "auto"
    workers: int | None = None
    cpus: int = 1
    gpus: float | None = None

    def __post_init__(self) -> None:
        too_few_workers = self.workers is not None and self.workers < 1
        if too_few_workers or self.cpus < 1 or (self.gpus or 0) < 0:
            raise SteerlabError(
                f"{self.workers} workers of {self.cpus} cores and {self.gpus} GPUs were asked for; "
                "give 1 or more workers and cores, and no negative number of GPUs"
            )

    def __call__(
        self, runner: Runner, batches: Iterable[Batch]
    ) -> Iterator[tuple[Batch, dict[str, Any]]]:
        """The batches' records, as they are done."""
        with _connected(self.address) as ray:
            yield from _Crew(ray, self, runner).work(iter(batches))


class _Crew:
    """The actors of one run."""

    def __init__(self, ray: Any, options: Ray, runner: Runner) -> None:
        self.ray = ray
        self.cpus = options.cpus
        resources = ray.cluster_resources()
        gpus = resources.get("GPU", 0)
        if options.gpus is not None:
            self.gpus = options.gpus
        else:
            self.gpus = 1 if gpus else 0
        # As many workers as the scarcer resource has room for.
        room = gpus / self.gpus if self.gpus else resources.get("CPU", 1) / options.cpus
        self.count = options.workers or max(1, int(room))
        # Each worker loads the model itself, where the unpickling says so, and knows nothing of
        # files and claims.
        self.recipe = ray.put(replace(runner, folder=None, workers=run_locally))
        self.maker = ray.remote(num_cpus=options.cpus, num_gpus=self.gpus)(_Worker)
        self.dead = (
            ray.exceptions.RayActorError,
            ray.exceptions.WorkerCrashedError,
            ray.exceptions.OutOfMemoryError,
        )

    def work(self, batches: Iterator[Batch]) -> Iterator[tuple[Batch, dict[str, Any]]]:
        """The records of the batches, in the order in which they are done."""
        actors = self._hire(self.count)
        deaths: Counter[str] = Counter()
        again: list[Batch] = []  # whose worker died
        running: dict[Any, tuple[Any, Batch]] = {}
        idle = list(actors)
        try:
            while True:
                while idle:
                    batch = again.pop() if again else next(batches, None)
                    if batch is None:
                        break
                    actor = idle.pop()
                    running[actor.run_batch.remote(batch)] = (actor, batch)
                if not running:
                    return
                done, _ = self.ray.wait(list(running), num_returns=1)
                actor, batch = running.pop(done[0])
                try:
                    record = self.ray.get(done[0])
                except self.dead as error:
                    deaths[batch.key] += 1
                    actors.remove(actor)
                    replacement = self._hire(1)
                    actors += replacement
                    idle += replacement
                    if deaths[batch.key] < DEATHS:
                        again.append(batch)
                        continue
                    record = _given_up(batch, error)
                except self.ray.exceptions.RayTaskError as error:
                    # An error of the code, not of the cluster: as it would be without Ray.
                    raise error.cause from None
                else:
                    idle.append(actor)
                yield batch, record
        finally:
            for actor in actors:
                self.ray.kill(actor)

    def _hire(self, count: int) -> list[Any]:
        """Start so many workers and wait until they have loaded the model."""
        languages = added()
        actors = [self.maker.remote(self.recipe, self.cpus, languages) for _ in range(count)]
        try:
            self.ray.get([actor.ready.remote() for actor in actors])
        except self.ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, SteerlabError):
                raise cause from None
            raise SteerlabError(f"a Ray worker did not start: {last_line_of(error)}") from error
        return actors


def _given_up(batch: Batch, error: Exception) -> dict[str, Any]:
    """The record of a batch that ends every worker: running out of memory does."""
    message = f"its worker died {DEATHS} times: {first_line_of(error)}"
    return {"batch": batch.key, "rows": {}, "failed": dict.fromkeys(batch.cells, message)}


class _Worker:
    """A process that holds a runner, and so the model."""

    def __init__(self, runner: Runner, threads: int, languages: tuple[Language, ...]) -> None:
        import torch

        torch.set_num_threads(threads)
        add_all(languages)  # which a user's call has added in the process that runs the sweep
        self.runner = runner

    def ready(self) -> int:
        return os.getpid()

    def run_batch(self, batch: Batch) -> dict[str, Any]:
        return self.runner.run_batch(batch)


@contextlib.contextmanager
def _on_loopback(ray: Any) -> Iterator[None]:
    """What Ray starts listens on loopback only: a cluster of one machine is nobody else's business.

    Ray has this for desktops, where other addresses ask the firewall, and no option for it.
    """
    constants = ray._private.ray_constants
    before = constants.ENABLE_RAY_CLUSTER
    constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before


@contextlib.contextmanager
def _connected(address: str) -> Iterator[Any]:
    """Ray, connected; shut down at the end unless it was connected before."""
    try:
        import ray
    except ImportError as error:
        raise SteerlabError("Ray is not installed; install steerlab[ray]") from error
    begun_here = not ray.is_initialized()
    if begun_here:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        try:
            if address == "auto":
                # Without a cluster to join, a local one is started below.
                with contextlib.suppress(ConnectionError):
                    ray.init(address="auto", **options)
            elif address != "local":
                ray.init(address=address, **options)
            if not ray.is_initialized():
                with _on_loopback(ray):
                    ray.init(address="local", include_dashboard=False, **options)
        # A node that does not start in time raises a plain Exception.
        except Exception as error:
            reason = first_line_of(error)
            if address == "local":
                raise SteerlabError(
                    f"no Ray cluster could be started on this machine ({reason}); let other work "
                    "end and try again, or run without Ray"
                ) from error
            raise SteerlabError(
                f"there is no Ray cluster at {address!r} ({reason}); start one with `ray start "
                "--head`, or give auto"
            ) from error
    try:
        yield ray
    finally:
        if begun_here:
            ray.shutdown()
