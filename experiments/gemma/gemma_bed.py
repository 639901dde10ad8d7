"""What the jobs on Gemma 3 270M share: the model, its texts, a runner, and how results are kept.

A job writes one small file, `recorded/<job>.json`: numbers, and sentences of the packaged corpus
with what the model made of them. `gemma_page` makes docs/gemma.md of these files alone, so that the
page can be made again, and tested, without the model.
"""

import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import steerlab as sl
from steerlab.analysis.choices import Setting
from steerlab.analysis.results import result
from steerlab.core.corpus import Corpus
from steerlab.core.directions import Directions
from steerlab.core.files import write_json
from steerlab.models.model import Model
from steerlab.scores.langid import Identifier
from steerlab.studies.design import spread_over_families
from steerlab.studies.main.summary import peak_bytes
from steerlab.sweeps.runner import Runner

ROOT = Path(__file__).resolve().parents[2]
RECORDED = Path(__file__).resolve().parent / "recorded"
OUT = Path("build/gemma")  # finished batches: a job that was stopped goes on
MODEL, SOURCE, FORM = "gemma-3-270m", "en", "echo:5"
DEV_LINES, TEST_LINES, FEW = 8, 24, 8  # sentences of a job, and targets where it takes some only
# What a result has, by the names of summaries.
SCORES = (
    "joint",
    "joint_all",
    "faithful",
    "chrfpp",
    "echo",
    "lfs",
    "relevance",
    "bits_per_byte_ratio",
)


@dataclass
class Bed:
    """The model in bfloat16 where the processor has it, and the packaged corpus."""

    source: str = SOURCE
    corpus: Corpus = field(default_factory=sl.corpus)

    @cached_property
    def model(self) -> Model:
        return sl.load(MODEL, dtype="auto")

    @cached_property
    def identifier(self) -> Identifier:
        return sl.scores.identifier()

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(lang for lang in self.corpus.langs if lang != self.source)

    @property
    def few(self) -> tuple[str, ...]:
        """Targets of as many families as there are."""
        return spread_over_families(self.targets, FEW)

    @cached_property
    def diffmean(self) -> Directions:
        """At every layer; kept, since every job needs it."""
        name = f"{self.model.metadata['dtype']}-{self.estimate.hash}".removeprefix("torch.")
        file = OUT / "diffmean" / f"{name}.safetensors"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            sl.diffmean(sl.collect(self.model, self.estimate, also=[])).save(file)
        return Directions.load(file)

    @property
    def estimate(self) -> Corpus:
        """The lines that directions are made of."""
        return self.corpus.split("estimate").take(240)

    def runner(
        self, job: str, directions: Mapping[str, Directions], *, fluency: bool = False
    ) -> Runner:
        """A runner with a folder of the job's own."""
        return Runner(
            model=self.model,
            corpus=self.corpus,
            directions=directions,
            identifier=self.identifier,
            limits={"dev": DEV_LINES, "test": TEST_LINES},
            folder=OUT / job,
            fluency=fluency,
        )


class Costs:
    """How long a job takes and how much memory, by itself: each job is a process of its own."""

    def __init__(self, command: str) -> None:
        self.command = command
        self.start = time.monotonic()

    def record(self) -> dict[str, Any]:
        """Seconds by both clocks, the most memory held, and how it was started."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "command": self.command,
            "seconds": round(time.monotonic() - self.start, 1),
            "cpu seconds": round(usage.ru_utime + usage.ru_stime, 1),
            "threads": torch.get_num_threads(),
            "peak bytes": peak_bytes(),
        }


def keep(job: str, found: Mapping[str, Any], costs: Costs, *, folder: Path = RECORDED) -> Path:
    """Write what a job found, with its costs."""
    file = folder / f"{job}.json"
    folder.mkdir(parents=True, exist_ok=True)
    write_json(file, {**rounded(found), "costs": costs.record()}, force=True)
    print(file, file=sys.stderr)
    return file


def scores(rows: pd.DataFrame) -> dict[str, Any]:
    """What the page shows of rows of one setting: each score with its interval, and what the edit
    costs."""
    whole = result(rows)
    kept = {name: whole[name] for name in SCORES if name in whole}
    more = ("operator", "layer", "strength", "dose", "displacement", "n")
    return kept | {name: whole[name] for name in more}


def pairs(source: str, targets: Sequence[str]) -> tuple[tuple[str, str], ...]:
    return tuple((source, target) for target in targets)


def settings(layers: Sequence[int], strengths: Sequence[float]) -> tuple[Setting, ...]:
    return tuple((layer, strength) for layer in layers for strength in strengths)


def bits(rows: pd.DataFrame, column: str = "joint") -> str:
    """A column of booleans as a string of 0 and 1, in the order of the sentences."""
    return "".join(str(int(value)) for value in rows.sort_values("sentence")[column])


def rounded(value: Any) -> Any:
    """Five digits of every number: what is below is the machine's, not the result's."""
    if isinstance(value, Mapping):
        return {str(key): rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(item) for item in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value
