"""Axes of words, steered: log frequency and concreteness, in English, German and Spanish.

`python experiments/concepts/axes.py` writes docs/axes.md of polyglot; `--model gemma-3-270m` prints
the same of another model. What is measured is kept in build/axes, and `--page` writes the page of
that alone.
"""

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
from axes_bench import LANGS, METHODS, STRENGTHS, Bench, Point
from axes_fit import across, correlations
from axes_page import page
from axes_steering import SLACK

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("frequency", "concreteness")
DEV, TEST = 50, 70
Setting = tuple[int, float]


def effects(bench: Bench, kind: str, points: list[Point], split: str) -> pd.DataFrame:
    """A row for each point and sentence, or held-out noun: `value` up less down, as the axis' own
    measure has it."""
    if kind == "concreteness":
        return pd.concat([bench.pull(point, split) for point in points], ignore_index=True)
    rows = bench.said(both_ways(points), split)
    return paired(rows, "frequency")


def both_ways(points: list[Point]) -> list[Point]:
    return [
        Point(p.kind, p.lang, p.method, p.layer, sign * p.strength, p.fitted)
        for p in points
        for sign in (1, -1)
    ]


def paired(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """By point and sentence, a column up less down; without those where one of the two has none."""
    key = ["kind", "lang", "method", "layer", "fitted", "sentence"]
    rows = rows.assign(size=rows["strength"].abs())
    up, down = rows[rows["strength"] > 0], rows[rows["strength"] < 0]
    merged = up.merge(down, on=[*key, "size"], suffixes=("", "_down"))
    merged["value"] = merged[column] - merged[f"{column}_down"]
    merged["strength"] = merged["size"]
    return merged[[*key, "strength", "value"]].dropna()


def choose(effect: pd.DataFrame, said: pd.DataFrame, lang: str) -> dict[str, Setting]:
    """By method the setting with the largest effect on dev, among those whose outputs stay in the
    language as often as unsteered ones but for `SLACK`, both ways; the least strength where none
    does."""
    plain = said[(said["method"] == "unsteered") & (said["lang"] == lang)]["in_language"].mean()
    chosen: dict[str, Setting] = {}
    for method in METHODS:
        own = effect[(effect["method"] == method) & (effect["lang"] == lang)]
        means = own.groupby(["layer", "strength"])["value"].mean()
        spoken = said[(said["method"] == method) & (said["lang"] == lang)]
        least = (
            spoken.assign(size=spoken["strength"].abs())
            .groupby(["layer", "size", "strength"])["in_language"]
            .mean()
            .groupby(["layer", "size"])
            .min()
        )
        able = means[[least[setting] >= plain - SLACK for setting in means.index]]
        if len(able):
            best: Any = able.idxmax()
        else:
            best = min(means.index, key=lambda setting: setting[::-1])
        chosen[method] = int(best[0]), float(best[1])
    return chosen


def measure(bench: Bench, keep: Callable[[str, pd.DataFrame], None], kind: str) -> None:
    """Dev at every setting, the choices, test at them, and the axes of other languages."""
    grid = [
        Point(kind, lang, method, layer, strength)
        for lang, method, layer, strength in product(LANGS, METHODS, bench.layers, STRENGTHS)
    ]
    plain = [Point(kind, lang, "unsteered", 0, 0.0) for lang in LANGS]
    said = bench.said([*both_ways(grid), *plain], "dev")
    effect = paired(said, "frequency") if kind == "frequency" else effects(bench, kind, grid, "dev")
    keep("dev", effect)
    keep("dev-said", said)
    settings = {lang: choose(effect, said, lang) for lang in LANGS}
    points, rows = [], []
    for lang, chosen in settings.items():
        for method in METHODS:
            at = {chosen[method]: "its own choice"}
            if method != "axis":
                at.setdefault(chosen["axis"], "the axis' setting")
            for (layer, strength), name in at.items():
                points.append(Point(kind, lang, method, layer, strength))
                rows.append({**vars(points[-1]), "at": name})
    keep("choices", pd.DataFrame(rows))
    keep("test-said", bench.said([*both_ways(points), *plain], "test"))
    keep("test", effects(bench, kind, points, "test"))
    travel = [
        Point(kind, lang, method, *settings[lang]["axis"], fitted)
        for lang, fitted, method in product(LANGS, LANGS, ("axis", "shuffled"))
        if lang != fitted
    ]
    keep("transfer", effects(bench, kind, travel, "test"))


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--model", default="polyglot")
    options.add_argument("--dev", type=int, default=DEV, help="lines that choose")
    options.add_argument("--test", type=int, default=TEST, help="lines that are reported")
    options.add_argument("--page", action="store_true", help="write the page of what is kept alone")
    given = options.parse_args()
    folder = ROOT / "build" / "axes" / given.model
    folder.mkdir(parents=True, exist_ok=True)

    def keep(name: str, table: pd.DataFrame, kind: str = "") -> None:
        name = f"{kind}-{name}" if kind else name
        table.to_csv(folder / f"{name}.csv", index=False)
        print(f"{name}: {len(table)} rows, {time.process_time():.0f} s", flush=True)

    if not given.page:
        bench = Bench(given.model, given.dev, given.test)
        keep("correlations", correlations(bench))
        keep("across", across(bench))
        for kind in KINDS:
            measure(bench, partial(keep, kind=kind), kind)
    text = page(folder, given.model)
    if given.model == "polyglot":
        (ROOT / "docs" / "axes.md").write_text(text, "utf-8")
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
