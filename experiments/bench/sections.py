"""The sections of the benchmark: one line each."""

import importlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Section:
    """A module of this folder with a function `measure(*, quick)`, which gives tables, notes and
    failures.

    `minutes` is what it may take before it counts as failed; `default`: `make bench` runs it
    unasked.
    """

    title: str
    module: str
    minutes: float = 5
    default: bool = True

    def measure(self, *, quick: bool) -> dict[str, Any]:
        return dict(importlib.import_module(self.module).measure(quick=quick))


SECTIONS = {
    "sweep": Section("A sweep over layers, targets and strengths", "sweep", minutes=25),
    "racing": Section("The best setting by racing", "raced", minutes=10),
    "decoding": Section("Steered over unsteered decoding", "decoding"),
    "collecting": Section("Collecting over a bare forward pass", "collecting", minutes=10),
    "replay": Section("A cross-entropy matrix over full forward passes", "replay"),
    "operators": Section("Microseconds per token of each operator", "operators"),
    "profile": Section("Where the time of a sweep goes", "profiled"),
    "startup": Section("Start-up", "startup"),
    "scaling": Section(
        "A sweep that is killed, shared and put on Ray", "scaling", minutes=60, default=False
    ),
    "gemma": Section("On Gemma 3 270M", "gemma", minutes=30, default=False),
    "gpu": Section("On a GPU", "gpu", minutes=60, default=False),
}
