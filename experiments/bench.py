"""What steering costs and what batching by row gains, as ratios measured in one run, turn by turn.

`make bench` prints a table and writes build/bench.json. Times are of this process on this machine: quote the ratios.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import steerlab as sl
from steerlab.model import Model
from steerlab.prompts import encode, pad

OUT = Path("build/bench.json")
TARGETS = ("de", "es", "ru", "tr", "ja", "pl", "fr", "hi")
NEW_TOKENS = 24


def timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def compare(first: Callable[[], object], second: Callable[[], object], rounds: int) -> dict[str, float]:
    """Seconds of both, taken in turns after one warm-up each, and the ratio first / second with its spread."""
    first(), second()
    pairs = [(timed(first), timed(second)) for _ in range(rounds)]
    ratios = [a / b for a, b in pairs]
    return {
        "first_s": statistics.median(a for a, _ in pairs),
        "second_s": statistics.median(b for _, b in pairs),
        "ratio": statistics.median(ratios),
        "low": min(ratios),
        "high": max(ratios),
    }


def sweep_by_rows(model: Model, lines: list[str], layers: list[int]) -> tuple[Callable, Callable]:
    """A loop over cells of 8 prompts with the Hugging Face `generate` and a plain hook, against one stacked call."""
    directions = sl.diffmean(sl.collect(model, sl.corpus().split("estimate"), also=[]))
    steps = [directions.between("en", iso).at(layer) for layer in layers for iso in TARGETS]
    ids, mask = pad(encode(model.tokenizer, lines), model.tokenizer.pad_token_id, model.device)

    @torch.inference_mode()
    def loop() -> None:
        for step in steps:
            shift = step.gap[0] * step.unit[0]
            handle = model.blocks[step.layers[0]].register_forward_hook(lambda _, __, out, shift=shift: out + shift)
            options = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "do_sample": False}
            model.hf.generate(input_ids=ids, attention_mask=mask.long(), **options)
            handle.remove()

    def stacked() -> None:
        edit = sl.stack([sl.add(step) for step in steps for _ in lines])
        sl.generate(model, lines * len(steps), max_new_tokens=NEW_TOKENS, one_line=False, edit=edit, batch=256)

    return loop, stacked


def steering(model: Model, lines: list[str]) -> tuple[Callable, Callable]:
    """Decoding without an edit, against the same under one: 1 means that steering is free."""
    directions = sl.diffmean(sl.collect(model, sl.corpus().split("estimate"), layers=[4], also=[]))
    edit = sl.add(directions.between("en", "es").at(4))
    options: dict[str, Any] = {"max_new_tokens": NEW_TOKENS, "one_line": False}
    return lambda: sl.generate(model, lines, **options), lambda: sl.generate(model, lines, edit=edit, **options)


def collecting(model: Model) -> tuple[Callable, Callable]:
    """The blocks alone over all lines, against collecting the means of every layer."""
    corpus = sl.corpus()

    @torch.inference_mode()
    def bare() -> None:
        for iso in corpus.langs:
            for start in range(0, len(corpus), 64):
                texts = [f"{line}\n" for line in corpus[iso][start : start + 64]]
                model.body(*pad(encode(model.tokenizer, texts), model.tokenizer.pad_token_id, model.device))

    return bare, lambda: sl.collect(model, corpus, also=[])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round, two layers")
    options = parser.parse_args()
    rounds, layers = (1, [2, 5]) if options.quick else (3, [1, 3, 5, 7])
    model, lines = sl.load(), [f"{line}\n" for line in sl.corpus().split("dev")["en"]]
    found = {
        "a loop over cells of 8 prompts / one stacked call": compare(*sweep_by_rows(model, lines[:8], layers), rounds),
        "unsteered / steered decoding, batch 48": compare(*steering(model, lines[:48]), rounds),
        "blocks alone / collecting every layer's means": compare(*collecting(model), rounds),
    }
    for name, row in found.items():
        seconds = f"{row['first_s']:.1f} s / {row['second_s']:.1f} s"
        print(f"{name}: {row['ratio']:.2f} [{row['low']:.2f}, {row['high']:.2f}]  ({seconds})")
    OUT.parent.mkdir(parents=True, exist_ok=True)
    told = {"threads": torch.get_num_threads(), "torch": torch.__version__, "rounds": rounds, "results": found}
    OUT.write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
