"""Which models are trained and scored, and how: one after another or side by side, each a record of
its own, so that what is there is not done again."""

import multiprocessing
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from clone_models import Run, perplexity, train
from clone_scores import Bed, alignment, scored
from clones import Text, swap_of

from steerlab.core.files import read_json, write_json

RECORDED = Path(__file__).resolve().parent / "recorded"
SMALL = Run(tokens=2_000_000)
LARGE = Run(tokens=50_000_000, layers=8, width=256, rows=256)
READ = 1600  # sequences whose vectors autoencoders and maps are fitted on
SAE_STEPS = 1500


def seeds_of(run: Run, seeds: int = 3) -> list[Run]:
    """The same run with other seeds."""
    return [replace(run, seed=seed) for seed in range(seeds)]


def alone(run: Run, parts: Sequence[int]) -> list[Run]:
    """Models of the first language alone, on a part of the tokens each: whole runs, since a
    checkpoint's learning rate has not fallen yet."""
    return [replace(run, tokens=run.tokens // part, shares=(0.0,)) for part in parts]


def plan(name: str) -> list[Run]:
    """The runs of a plan, in their order."""
    if name == "cpu":
        return [*seeds_of(SMALL), *alone(SMALL, (8, 4, 2, 1))]
    if name == "gpu":
        large = [replace(LARGE, shares=shares) for shares in ((0.5,), (0.1,), (0.02,), (0.0, 0.5))]
        # The short ones first and seed by seed, so that a run that is cut off has something to show.
        runs = seeds_of(SMALL) + seeds_of(replace(SMALL, frac=0.5))
        runs += [replace(run, seed=seed) for seed in range(3) for run in large]
        runs += seeds_of(replace(SMALL, tokens=LARGE.tokens, rows=LARGE.rows))
        runs += alone(LARGE, (50, 10, 3, 1))
        return runs + seeds_of(replace(LARGE, shares=(0.1, 0.9)))
    if name == "tiny":
        tiny = Run(tokens=20_000, layers=2, width=24)
        half = replace(tiny, shares=(0.0, 0.5), frac=0.5)
        return [*seeds_of(tiny, 2), half, *alone(tiny, (2, 1))]
    raise SystemExit(f"there is no plan {name!r}; there are cpu, gpu, tiny")


def done(run: Run, folder: Path = RECORDED) -> bool:
    """Whether there is a record of a run."""
    file = folder / f"{run.name}.json"
    return file.exists() and as_run(read_json(file)["run"]) == run


def as_run(record: Mapping[str, Any]) -> Run:
    """A run as its record says it."""
    return Run(**{**record, "shares": tuple(record["shares"])})


def perform(text: Text, run: Run, device: str, *, sae_steps: int = SAE_STEPS) -> dict[str, Any]:
    """Train a model and score the methods on it; one of the first language alone has a perplexity
    and nothing else."""
    torch.set_float32_matmul_precision("high")
    begun, processor = time.monotonic(), time.process_time()
    hf = train(text, run, device)
    swap = swap_of(text.words, run.frac)
    both = any(run.shares)
    record: dict[str, Any] = {
        "run": asdict(run),
        "words": text.words,
        "text_tokens": len(text.stream),
        "weights": sum(weight.numel() for weight in hf.parameters()),
        "device": torch.cuda.get_device_name(hf.device) if device != "cpu" else "CPU",
    }
    torch.set_float32_matmul_precision("highest")
    record["perplexity"] = [
        perplexity(hf, text, swap, clone=clone) for clone in ((False, True) if both else (False,))
    ]
    record["training_seconds"] = time.monotonic() - begun
    if both:
        bed = Bed.of(hf, text, run, read=READ, sae_steps=sae_steps)
        record["alignment"] = alignment(bed)
        record["scores"], record["saes"] = scored(bed)
    record["seconds"] = time.monotonic() - begun
    record["processor_seconds"] = time.process_time() - processor
    return record


def run_all(
    text: Text,
    runs: Iterable[Run],
    *,
    device: str = "cpu",
    processes: int = 1,
    sae_steps: int = SAE_STEPS,
    folder: Path = RECORDED,
) -> None:
    """Do what has no record yet.

    Args:
        text: to train and score on.
        runs: what to do, in this order.
        device: "cpu" or "cuda".
        processes: how many at a time, each a process of its own.
        sae_steps: for how long autoencoders are trained.
        folder: of the records.
    """
    folder.mkdir(parents=True, exist_ok=True)
    left = [run for run in runs if not done(run, folder)]
    if processes == 1:
        for run in left:
            _record(text, run, device, sae_steps, folder)
        return
    # Spawned: a forked process cannot use CUDA.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        processes, mp_context=context, initializer=_begin, initargs=(text, processes)
    ) as pool:
        waiting = [pool.submit(_of_text, run, device, sae_steps, folder) for run in left]
        for each in as_completed(waiting):
            each.result()


_TEXT: list[Text] = []  # of a process


def _begin(text: Text, processes: int) -> None:
    _TEXT.append(text)
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))


def _of_text(run: Run, device: str, sae_steps: int, folder: Path) -> None:
    _record(_TEXT[0], run, device, sae_steps, folder)


def _record(text: Text, run: Run, device: str, sae_steps: int, folder: Path) -> None:
    print(f"{run.name} is begun", file=sys.stderr, flush=True)
    record = perform(text, run, device, sae_steps=sae_steps)
    write_json(folder / f"{run.name}.json", record)
    print(
        f"{run.name}: {record['seconds']:.0f} s, of which {record['training_seconds']:.0f} training",
        file=sys.stderr,
        flush=True,
    )
