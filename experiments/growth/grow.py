"""Grow small models, and measure how well each can be steered.

`python experiments/growth/grow.py TEXT.npz OUT [--processes 8] [--plan full|small]` trains the runs
of a plan, and after so many tokens fits DiffMean on `estimate`, chooses layer and strength on
`dev`, and reports on `test`: OUT/<run>.json. A run that is there already is left out.
"""

import argparse
import copy
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from growing import Recipe, grown
from text import LANGS, Text
from transformers import AutoTokenizer

import steerlab as sl
from steerlab.analysis.choices import choose
from steerlab.engine.cross_entropy import bits_per_byte
from steerlab.models.loading import PACKAGED

MILLION = 1_000_000
POINTS = tuple(int(each * MILLION) for each in (1.25, 2.5, 5, 10))
COMPARED = POINTS[2:3]  # of the runs that differ in width or languages
SEEDS = (0, 1, 2)
WIDTHS, PARALLEL = (64, 128, 512), (0, 1, 2, 4, 8)
LAYERS, STRENGTHS = (1, 3, 5), (0.5, 1.0, 1.5)
DEV, TEST, NEW_TOKENS = 8, 24, 24
SHARES = ("in_language", "joint")


def plan(name: str) -> list[Recipe]:
    """The runs, seed by seed."""
    if name == "small":
        return [Recipe(64, each, 0, (20_000, 40_000)) for each in (15, 0)]
    runs = []
    for seed in SEEDS:
        runs.append(Recipe(256, 15, seed, POINTS))
        runs += [Recipe(256, each, seed, COMPARED) for each in PARALLEL]
        runs += [Recipe(width, 15, seed, COMPARED) for width in WIDTHS]
    return runs


def measured(
    hf: Any, tokenizer: Any, lines: tuple[int, int], langs: Sequence[str]
) -> dict[str, Any]:
    """What steering with DiffMean comes to, chosen on dev and read on test."""
    model, corpus = sl.load(hf, tokenizer=tokenizer), sl.corpus(langs=list(langs))
    targets = [lang for lang in langs if lang != "en"]
    common: dict[str, Any] = {
        "targets": targets,
        "new_tokens": NEW_TOKENS,
        "prompt": "line",
        "progress": False,
    }
    found = sl.diffmean(sl.collect(model, corpus.split("estimate")))
    dev = sl.sweep(
        model, corpus, directions={"vector": found}, layers=LAYERS, operators={"add": STRENGTHS},
        split="dev", limit=lines[0], **common,
    )  # fmt: skip
    layer, strength = choose(dev.assign(method="vector"))["vector"]
    made = {"vector": found, "random": sl.controls.random(found, seed=0, source="en")}
    test = sl.sweep(
        model, corpus, directions=made, layers=[layer], operators={"add": (strength,)},
        split="test", limit=lines[1], **common,
    )  # fmt: skip
    kept: dict[str, Any] = {"sentences": sorted(set(map(int, test["sentence"])))}
    for name, of_name in test.groupby("estimator"):
        kept[str(name)] = {str(target): _short(rows) for target, rows in of_name.groupby("target")}
    alone = corpus.split("dev").take(48)
    bits = {lang: float(bits_per_byte(model, list(alone[lang])).mean()) for lang in alone.langs}
    return {"layer": int(layer), "strength": float(strength), "test": kept, "bits_per_byte": bits}


def _short(rows: pd.DataFrame) -> dict[str, Any]:
    """The scores of one target, a letter for each sentence in their order, and chrF."""
    rows = rows.sort_values("sentence")
    marks = {name: "".join("01"[int(each)] for each in rows[name]) for name in SHARES}
    return {**marks, "chrf": [round(float(each), 1) for each in rows["chrf"]]}


def run(
    recipe: Recipe, text: Text, out: Path, device: str, lines: tuple[int, int], langs: Any
) -> None:
    """Train and measure one model; its file is written when all is there."""
    tokenizer = AutoTokenizer.from_pretrained(PACKAGED)
    begun, points = time.monotonic(), []
    training = measuring = 0.0
    for seen, loss, hf in grown(text, recipe, device):
        training += (now := time.monotonic()) - begun
        # On the processor: decoding a small model is launches of small kernels, for which many
        # processes on one GPU wait for each other.
        found = measured(copy.deepcopy(hf).cpu(), tokenizer, lines, langs)
        measuring += (begun := time.monotonic()) - now
        points.append({"tokens": seen, "loss": loss, "seconds": training, **found})
        print(f"{recipe.name} {seen:,}: {training:.0f} + {measuring:.0f} s, {loss:.2f}", flush=True)
    weights = sum(each.numel() for each in hf.parameters())
    where = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    told = {"recipe": asdict(recipe), "taught": recipe.taught, "weights": weights, "device": where}
    fresh = out / f"{recipe.name}.new"
    fresh.write_text(json.dumps(told | {"points": points}), "utf-8")
    fresh.rename(out / f"{recipe.name}.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--plan", choices=("full", "small"), default="full")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--part", type=int, help="of the processes, which one this is")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no run after so many")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if given.processes > 1 and given.part is None:
        own = [sys.executable, __file__, *sys.argv[1:]]
        parts = [subprocess.Popen([*own, "--part", str(part)]) for part in range(given.processes)]
        sys.exit(max(each.wait() for each in parts))
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    begun, text = time.monotonic(), Text.load(given.text)
    small = given.plan == "small"
    lines, langs = ((2, 2), LANGS[:3]) if small else ((DEV, TEST), LANGS)
    for recipe in plan(given.plan):
        claim = given.out / f"{recipe.name}.claim"
        late = time.monotonic() - begun > given.seconds
        if late or (given.out / f"{recipe.name}.json").exists():
            continue
        try:
            claim.touch(exist_ok=False)  # another process has it otherwise
        except FileExistsError:
            print(
                f"{recipe.name}: another process has it; if none runs, remove {claim}", flush=True
            )
            continue
        try:
            run(recipe, text, given.out, given.device, lines, langs)
        finally:
            claim.unlink()


if __name__ == "__main__":
    main()
