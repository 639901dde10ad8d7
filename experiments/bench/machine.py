"""The machine that a section was measured on: what it is, and how much of it others used
meanwhile."""

import datetime
import os
import platform
import resource
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "transformer-lens", "numpy")
# Threads that wait spin this often before they sleep: as fast as the default (libgomp's own count
# is far higher) on a quiet machine, and not several times slower as soon as anything else wants a
# core.
SPIN = "10000"


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads() -> int:
    """How many threads this process was told to use; every worker that it starts gets the same."""
    return int(os.environ.get("OMP_NUM_THREADS") or cores())


def environment(threads: int) -> dict[str, str]:
    """The environment of every process that is measured: the same threads, no network, no
    chatter."""
    count = str(threads)
    same = {
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "GOMP_SPINCOUNT": SPIN,
    }
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore"}
    return os.environ | same | quiet


def about(threads: int) -> dict[str, Any]:
    """What a section says of the machine it ran on."""
    return {
        "cpu": _cpu(),
        "cores": cores(),
        "threads": threads,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
    }


class Others:
    """The share of the machine's cores that processes other than our own children used; None
    where it is not told."""

    def __init__(self) -> None:
        self.start, self.busy, self.own = time.perf_counter(), _busy(), _own()

    def share(self) -> float | None:
        busy = _busy()
        if self.busy is None or busy is None:
            return None
        others = (busy - self.busy) - (_own() - self.own)
        total = (time.perf_counter() - self.start) * (os.cpu_count() or 1)
        return round(max(0.0, others / total), 3)


def _busy() -> float | None:
    """Seconds that all cores together have worked since the machine started."""
    try:
        fields = [
            int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
        ]
    except (OSError, ValueError):
        return None
    user, nice, system, _, _, irq, softirq = fields[:7]
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def _own() -> float:
    """Seconds of our children that have ended, and of this process."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
