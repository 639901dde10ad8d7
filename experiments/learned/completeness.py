"""How far the attributions of tokens are from adding up: even steps along the path beside pieces that
are halved. `python experiments/learned/completeness.py` prints the table of docs/methods.md, and with
`--taken` what the answers lose when tokens are taken away."""

import argparse
import time
from functools import partial

import numpy as np
import torch
from scipy.stats import spearmanr

import steerlab as sl
from steerlab.engine.answers import Answered, answer_log_probs
from steerlab.engine.attribution import SMALLEST, Contrast, _Path, rows_of
from steerlab.engine.grains import _at_random, _take_away, _taken

LANGUAGES = ("de", "es", "ru")
EVEN = {"zero": (20, 160), "mean": (20,)}


def even(model: sl.Model, triples: list, baseline: str, steps: int) -> list[float]:
    """What the midpoint rule misses of each pair's change, as a share."""
    missed = []
    for pair in rows_of(model, triples):
        path = _Path(model, pair, baseline, 64)
        points = [(step + 0.5) / steps for step in range(steps)]
        total = float(path.look(points)[1].mean(0).sum())
        start, end = path.values([0.0, 1.0]).tolist()
        missed.append(abs(total - (end - start)) / max(abs(end - start), SMALLEST))
    return missed


def lost(model: sl.Model, pair: Contrast, taken: list[list[int]]) -> np.ndarray:
    """What log p(chosen) - log p(rejected) loses without each of some groups of tokens."""
    rows = [[], *taken]
    total = torch.zeros(len(rows))
    for sign, row in zip((1, -1), pair.answers, strict=True):
        many = Answered((row,) * len(rows), (len(row) - len(pair.prompt),) * len(rows))
        look = ("resid_pre", 0, partial(_take_away, rows, "zero"))
        with torch.no_grad():
            total = total + sign * answer_log_probs(model, many, [look])
    found = total.numpy()
    return found[0] - found[1:]


def taken_away(model: sl.Model, triples: list, share: float = 0.3, seeds: int = 5) -> str:
    """How attributions and losses agree, and what groups of tokens lose, over all pairs."""
    pairs, frame = rows_of(model, triples), sl.attribution(model, triples)
    top = _taken(pairs, frame, share, None, "both")
    random = [_at_random(frame, top, seed)["positive"] for seed in range(seeds)]
    agree, losses = [], []
    for number, (_, of_pair) in enumerate(frame.groupby("pair")):
        single = lost(model, pairs[number], [[place] for place in of_pair["position"]])
        agree.append(spearmanr(single, of_pair["attribution"]).statistic)
        groups = [top["positive"][number], top["negative"][number]]
        of_groups = lost(model, pairs[number], groups + [each[number] for each in random])
        losses.append([*of_groups[:2], of_groups[2:].mean()])
    positive, negative, any_ = np.mean(losses, 0)
    return (
        f"rank correlation {np.mean(agree):.2f} ({min(agree):.2f} to {max(agree):.2f}); nats lost without "
        f"{share:.0%} of the tokens: positive {positive:.2f}, negative {negative:.2f}, random {any_:.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="polyglot")
    parser.add_argument("--form", default="line")
    parser.add_argument("--prompts", type=int, default=12, help="of each language")
    parser.add_argument("--taken", action="store_true", help="of German, and no table")
    given = parser.parse_args()
    model = sl.load(given.model)
    triples = []
    for lang in LANGUAGES[:1] if given.taken else LANGUAGES:
        pairs = sl.preferences(sl.corpus(), "en", lang, split="estimate", form=given.form)
        triples += pairs.take(given.prompts).triples(model)
    if given.taken:
        print(taken_away(model, triples))
        return
    print(
        "| baseline | points | missed: median, largest | passes of an answer | CPU seconds a pair |"
    )
    print("|---|---|---|---|---|")
    for baseline, counts in EVEN.items():
        for steps in counts:
            begun = time.process_time()
            missed = even(model, triples, baseline, steps)
            cost = (time.process_time() - begun) / len(triples)
            shown = f"{np.median(missed):.1%}, {max(missed):.0%}"
            print(
                f"| {baseline} | {steps} even steps | {shown} | {steps} | {cost:.1f} |", flush=True
            )
        begun = time.process_time()
        frame = sl.attribution(model, triples, baseline=baseline)
        cost = (time.process_time() - begun) / len(triples)
        of_pairs = frame.groupby("pair")
        change, points = of_pairs["change"].first(), of_pairs["points"].first()
        share = (of_pairs["attribution"].sum() - change).abs() / change.abs().clip(lower=SMALLEST)
        print(
            f"| {baseline} | pieces, to 5 % | {share.median():.1%}, {share.max():.1%} | "
            f"{points.median():.0f} ({points.min()} to {points.max()}) | {cost:.1f} |",
            flush=True,
        )
    print(f"\nn = {len(triples)} pairs, change {change.abs().min():.2f} nats or more")


if __name__ == "__main__":
    main()
