"""Steer2Edit as an edit of heads, and of neurons, beside the difference of means on a model: settings
chosen on dev, reported on test beside random twins. `python experiments/learned/writing.py` writes
docs/writing_gemma.md."""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd

import steerlab as sl
from steerlab.analysis.choices import choose
from steerlab.analysis.intervals import paired_difference
from steerlab.analysis.results import result
from steerlab.core.directions import Direction
from steerlab.edits import Edit, Operator, write_along
from steerlab.edits.twins import Twin, twin_of

PAGE = Path(__file__).parents[2] / "docs" / "writing_gemma.md"
SOURCE, NEW, SEEDS = "en", 24, 3
RHOS = (128.0, 96.0, 64.0, 48.0, 32.0, 24.0, 16.0, 12.0, 8.0)
GAPS = (0.5, 1.0, 1.5)
FITS = {"diffmean": "diffmean", "heads": "steer2edit heads", "neurons": "steer2edit"}


def random_writing(seed: int) -> Operator:
    """The twin of `write_along`: it reads the same and writes along a random vector as long."""

    def make(direction: Direction, *, rho: float) -> Edit:
        return twin_of(write_along(direction, rho=rho), Twin(seed))

    return Operator(
        make=make, knob="rho", unit="1/√d", grid=RHOS, whole=True, estimator="steer2edit",
        no_twin="it is one",
    )  # fmt: skip


def swept(given: argparse.Namespace, model: Any, fits: dict, split: str, **keys: Any) -> Any:
    """Rows of one split."""
    rows = sl.sweep(
        model,
        sl.corpus(langs=[SOURCE, given.target]),
        directions=fits,
        targets=[given.target],
        split=split,
        limit=given.dev if split == "dev" else given.test,
        new_tokens=NEW,
        prompt=given.prompt,
        layers=[given.layer],
        progress=False,
        **keys,
    )
    for failed in rows.attrs.get("failed", {}).values():
        print(failed, file=sys.stderr)
    return rows


def cell(rows: pd.DataFrame) -> str:
    return f"{rows['joint'].mean():.2f}, {rows['in_language'].mean():.2f}, {rows['relevant'].mean():.2f}"


def page(given: argparse.Namespace, command: str) -> str:
    model = sl.load(given.model)
    texts = sl.corpus(langs=[SOURCE, given.target]).split("estimate").take(given.pairs)
    fits, seconds = {}, {}
    for name, fit in FITS.items():
        begun = time.process_time()
        fits[name] = sl.fit(fit, model, texts, progress=False)
        seconds[name] = time.process_time() - begun
    operators = {name: "add" if name == "diffmean" else "write_along" for name in FITS}
    grids = {name: GAPS if name == "diffmean" else RHOS for name in FITS}
    dev = {
        name: swept(
            given, model, {"fit": fits[name]}, "dev", operators={operators[name]: grids[name]}
        )
        for name in FITS
    }
    plain = swept(given, model, {"fit": fits["diffmean"]}, "dev", operators={"add": (1e-6,)})
    said = [
        "# Steer2Edit's heads and neurons, by their names",
        "",
        f"`{command}` on {model.name}, {SOURCE} to {given.target}, prompt form `{given.prompt}`. Read from "
        f"{given.pairs} sentences of `estimate` in each language; chosen on {given.dev} lines of `dev`, reported on "
        f"{given.test} lines of `test` (n), greedy, {NEW} tokens, 95 % intervals. `diffmean` is added at layer "
        f"{given.layer}; heads and neurons write at all layers that have some, by `write_along` with α .05, "
        "[which is what Steer2Edit's weights do](methods.md#in-the-weights).",
        "",
        "| method | chosen | joint (95 %) | less `diffmean` (95 %) | in language | moved | seconds to fit | n |",
        "|---|---|---|---|---|---|---|---|",
    ]
    base = None
    for name in FITS:
        best = next(iter(choose(dev[name].assign(method=name)).values()))[1]
        at = {operators[name]: (best,)}
        tests = {name: swept(given, model, {"fit": fits[name]}, "test", operators=at)}
        if name != "diffmean":
            twins = [
                swept(given, model, {"fit": fits[name]}, "test", operators={"twin": random_writing(seed)},
                      strengths=[best])
                for seed in range(SEEDS)
            ]  # fmt: skip
            tests[f"{name}, random"] = pd.concat(
                [rows.assign(seed=seed) for seed, rows in enumerate(twins)], ignore_index=True
            )
        base = tests[name] if base is None else base
        for shown, rows in tests.items():
            seeds = rows["seed"].to_numpy() if "random" in shown else None
            said.append(line_of(shown, best, rows, base, seeds, seconds.get(shown)))
            print(said[-1], file=sys.stderr, flush=True)
    said += [
        "",
        f"*Moved*: how far the last of the stream is moved, over its length. *random*: the same reading, written along a "
        f"random vector as long, {SEEDS} seeds; the interval covers other seeds. It is as long before the "
        "output projection, and moves the stream by less. Seconds are of the processor.",
        "",
        "## What was chosen from",
        "",
        f"In each cell, of `dev`: joint, in language, in the sense; the unsteered model has {cell(plain)}. –: nothing "
        "agrees by more than ρα.",
        "",
        f"| | {' | '.join(f'ρ {rho:g}' for rho in RHOS)} |",
        "|---|" + "---|" * len(RHOS),
    ]
    for name in ("heads", "neurons"):
        of = dict(iter(dev[name].groupby("strength")))
        said.append(
            f"| {name} | {' | '.join(cell(of[rho]) if rho in of else '–' for rho in RHOS)} |"
        )
    return "\n".join([*said, ""])


def line_of(
    name: str,
    best: float,
    rows: pd.DataFrame,
    base: pd.DataFrame,
    seeds: Any,
    seconds: float | None,
) -> str:
    """A method's row of the table."""
    less = "–"
    joint, sentence = rows["joint"].to_numpy(float), rows["sentence"].to_numpy()
    if rows is not base:
        own = base["joint"].to_numpy(float), base["sentence"].to_numpy()
        gap, low, high = paired_difference(joint, sentence, *own, a_seeds=seeds)
        less = f"{gap:+.2f} ({low:+.2f} to {high:+.2f})"
    if seeds is None:
        value, low, high = result(rows)["joint"]
    else:
        value, low, high = sl.stats.by_sentence(joint, sentence, control_seeds=seeds)
    cost = "–" if seconds is None else f"{seconds:.0f}"
    return (
        f"| {name} | {best:g} | {value:.2f} ({low:.2f} to {high:.2f}) | {less} | {rows['in_language'].mean():.2f} | "
        f"{rows['displacement'].mean():.2f} | {cost} | {len(rows)} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="gemma-3-270m")
    parser.add_argument("--target", default="de")
    parser.add_argument("--layer", type=int, default=8, help="of the difference of means")
    parser.add_argument("--prompt", default="echo:5")
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--dev", type=int, default=8)
    parser.add_argument("--test", type=int, default=32)
    parser.add_argument("--out", type=Path, default=PAGE)
    given = parser.parse_args()
    text = page(given, f"python experiments/learned/writing.py {' '.join(sys.argv[1:])}".strip())
    given.out.write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    main()
