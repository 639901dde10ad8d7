"""How far the attributions of tokens are from adding up: even steps along the path beside pieces that
are halved. `python experiments/learned/completeness.py` prints the table of docs/methods.md."""

import argparse
import time

import numpy as np

import steerlab as sl
from steerlab.engine.attribution import SMALLEST, _Path, rows_of

LANGUAGES = ("de", "es", "ru")
EVEN = {"zero": (20, 160), "mean": (20,)}


def even(model: sl.Model, triples: list, baseline: str, steps: int) -> list[float]:
    """What the midpoint rule misses of each pair's change, as a share."""
    missed = []
    for pair in rows_of(model, triples):
        path = _Path(model, pair, baseline, 64)
        points = [(step + 0.5) / steps for step in range(steps)]
        total = float(path.slopes(points).mean(0).sum())
        start, end = path.values([0.0, 1.0]).tolist()
        missed.append(abs(total - (end - start)) / max(abs(end - start), SMALLEST))
    return missed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="polyglot")
    parser.add_argument("--form", default="line")
    parser.add_argument("--prompts", type=int, default=12, help="of each language")
    given = parser.parse_args()
    model = sl.load(given.model)
    triples = []
    for lang in LANGUAGES:
        pairs = sl.preferences(sl.corpus(), "en", lang, split="estimate", form=given.form)
        triples += pairs.take(given.prompts).triples(model)
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
