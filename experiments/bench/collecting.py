"""What collecting costs beside the forward passes that it needs anyway, and what memory it takes as
a corpus grows.

`python collecting.py FOLDER` collects the means of a corpus folder and prints the peak memory of
the process: the section runs it once for each size.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from measures import interleaved, ratio, spread

import steerlab as sl
from steerlab.engine.prompts import encode, pad

SIZES, LANGS, BATCH = (1_000, 10_000, 100_000), ("en", "es"), 64


def measure(*, quick: bool) -> dict[str, Any]:
    speed = {"title": "Sentences per second", "rows": _speed(rounds=2 if quick else 5)}
    memory = {"title": "Peak memory, means only", "rows": _memory(SIZES[:2] if quick else SIZES)}
    notes = [
        "Bare: the blocks alone (no logits) over the same sentences in the same batches of "
        f"{BATCH} lines of a language, tokenised and padded in the same way. Polyglot, all layers.",
        f"Memory: the {BATCH} shortest packaged sentences of {' and '.join(LANGS)}, repeated to "
        "the size, a process of "
        "its own for each.",
    ]
    return {"tables": [speed, memory], "notes": notes}


def _speed(*, rounds: int) -> list[dict[str, Any]]:
    model, corpus = sl.load(dtype="float32"), sl.corpus().split("estimate").take(BATCH)
    ways: dict[str, dict[str, Any]] = {
        "means": {"also": []},
        "means and pooled scatter": {"also": ["scatter"]},
        "means of layer 1 alone": {"also": [], "layers": [1]},  # a pass ends behind it
    }

    @torch.inference_mode()
    def bare() -> None:
        for start in range(0, len(corpus), BATCH):
            for iso in corpus.langs:
                lines = [f"{line}\n" for line in corpus[iso][start : start + BATCH]]
                model.body(
                    *pad(encode(model.tokenizer, lines), model.tokenizer.pad_token_id, model.device)
                )

    def collecting(options: dict[str, Any]) -> Any:
        return lambda: sl.collect(model, corpus, batch=BATCH, **options)

    taken = interleaved(
        {"bare": bare} | {name: collecting(options) for name, options in ways.items()},
        rounds=rounds,
    )
    count = len(corpus) * len(corpus.langs)
    rows: list[dict[str, Any]] = [
        {"what": "bare", "sentences/s": spread([count / spent for spent in taken["bare"]])}
    ]
    for name, aim in zip(ways, ("0.95", "0.85", "2"), strict=True):
        rate = spread([count / spent for spent in taken[name]])
        rows.append(
            {
                "what": name,
                "sentences/s": rate,
                "of bare": ratio(taken["bare"], taken[name]),
                "aim": aim,
            }
        )
    return rows


def _memory(sizes: tuple[int, ...]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            write_corpus(Path(folder), size)
            command = [sys.executable, __file__, folder]
            done = subprocess.run(
                command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ
            )
        peak = json.loads(done.stdout.splitlines()[-1])["peak"]
        first = rows[0]["MiB"] if rows else peak / 2**20
        rows.append(
            {
                "sentences": size,
                "MiB": peak / 2**20,
                "of the first": peak / 2**20 / first,
                "aim": "1.05",
            }
        )
    return rows


def write_corpus(folder: Path, sentences: int) -> None:
    """The shortest packaged lines, repeated until all languages together have as many sentences."""
    corpus = sl.corpus()
    for iso in LANGS:
        short = sorted(corpus[iso], key=len)[:BATCH]
        lines = islice(cycle(short), sentences // len(LANGS))
        (folder / f"{iso}.txt").write_text("".join(f"{line}\n" for line in lines), "utf-8")


def main() -> None:
    sl.collect(sl.load(), sl.corpus(sys.argv[1]), also=[])
    unit = 1 if sys.platform == "darwin" else 1024
    print(json.dumps({"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}))


if __name__ == "__main__":
    main()
