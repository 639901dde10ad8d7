"""Register and gender as concepts across languages: what of them languages share, what steers them,
and whether it transfers.

`python experiments/concepts/concepts_page.py [--model polyglot|gemma-3-270m]` writes the page that cases.py
names for the model, its figures (docs/images/concepts-*) and build/concepts. Rows that were decoded
are kept there: the same command goes on after a stop.
"""

import argparse
import sys
import time
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import concept_tables as tables
import numpy as np
import pandas as pd
from cases import SETUPS, TEST_LINES, Case, Setup, gender_case, register_case
from concept_sections import write
from fits import Fits, fitted, from_language, shared
from running import Point, costs, possible, run

import steerlab as sl


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=SETUPS, default="polyglot")
    parser.add_argument("--only", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument(
        "--cases", nargs="+", choices=("register", "gender"), default=["register", "gender"]
    )
    parser.add_argument("--page", action="store_true", help="write the page of what is there alone")
    given = parser.parse_args()
    setup, start = SETUPS[given.model], time.monotonic()
    setup.out.mkdir(parents=True, exist_ok=True)
    if not given.page:
        model = sl.load(setup.model, dtype=setup.dtype)
        cases = {"register": register_case(setup, model), "gender": gender_case(setup, model)}
        for name, other in (("register", "gender"), ("gender", "register")):
            bench = Bench(setup, cases[name], cases[other])
            for step in given.only if name in given.cases else ():
                if not (setup.out / f"{name}-{step}.done").exists():
                    STEPS[step](bench)
                    (setup.out / f"{name}-{step}.done").touch()
                    print(f"{name}, {step} after {time.monotonic() - start:.0f} s", flush=True)
    write(setup)
    print(setup.page)
    return 0


@dataclass
class Bench:
    """A case with its directions, fitted when they are first asked for."""

    setup: Setup
    case: Case
    other: Case

    @cached_property
    def fits(self) -> Fits:
        return fitted(self.case, self.other)

    @property
    def rows(self) -> Path:
        return self.setup.out / "rows"

    @property
    def limit(self) -> int | None:
        return self.setup.limit or TEST_LINES

    def keep(self, name: str, table: pd.DataFrame) -> None:
        table.to_csv(self.setup.out / f"{self.case.name}-{name}.csv", index=False)

    def kept(self, name: str) -> pd.DataFrame:
        return pd.read_csv(self.setup.out / f"{self.case.name}-{name}.csv", keep_default_na=True)


def steer(bench: Bench) -> None:
    """The rows of dev, the choice made on them, the rows of test, and what the edits cost."""
    setup, case, fits = bench.setup, bench.case, bench.fits
    plain = [
        Point("unsteered", lang, goal, -1, 0.0) for lang in case.langs for goal in case.concepts
    ]
    hinted = [Point("prompt", p.lang, p.goal, -1, 0.0) for p in plain] if case.hints else []
    grid = [
        point
        for method, lang, goal, layer, strength in product(
            fits, case.langs, case.concepts, case.layers, setup.strengths
        )
        if possible(fits, point := Point(method, lang, goal, layer, strength))
    ]
    dev = run(case, fits, [*grid, *plain], "dev", setup.dev, bench.rows)
    choice = tables.chosen(dev[dev["strength"] > 0])
    best = [
        Point(method, lang, goal, *setting)
        for (method, goal), setting in choice.items()
        for lang in case.langs
    ]
    test = run(case, fits, [*best, *plain, *hinted], "test", bench.limit, bench.rows)
    bench.keep("dev", dev)
    bench.keep("test", test)
    bench.keep("cost", costs(case, fits, best, "test"))
    bench.keep("dose", tables.dose_table(dev, costs(case, fits, grid, "dev")))


def transfer(bench: Bench) -> None:
    """Fitted in one language, steering another, at the setting that dev chose for a language's own
    direction."""
    case, goal = bench.case, bench.case.concepts[1]
    dev = bench.kept("dev")
    layer, strength = tables.chosen(dev[dev["strength"] > 0])["own language", goal]
    points: list[Any] = []
    more: dict[str, Any] = {}
    for source, lang in product(case.langs, case.langs):
        name = f"from {source}"
        more.setdefault(name, {})[lang] = [from_language(case, source, lang)]
        points.append(Point(name, lang, goal, layer, strength))
    rows = run(case, more, points, "test", bench.limit, bench.rows)
    rows["fitted"] = rows["method"].str.removeprefix("from ")
    test = bench.kept("test")
    bench.keep("transfer", tables.matrix(rows, test[test["method"] == "unsteered"]))


def shares(bench: Bench) -> None:
    """The shared share by layer, beside that of shuffled labels."""
    table = bench.case.everywhere.shares()
    dealt = [one.shares()["shared"].to_numpy() for one in bench.case.dealt]
    bench.keep("shares", table.assign(shuffled=np.mean(dealt, axis=0)))


def features(bench: Bench) -> None:
    """The features that all languages share."""
    found = shared(bench.case)
    if found is not None:
        table = found[0].table
        for name in ("pools", "tops"):
            table[name] = [" ".join(map(str, sizes)) for sizes in table[name]]
        bench.keep("features", table)


def probe(bench: Bench) -> None:
    """Held-out accuracy of a linear probe on means over a text's tokens."""
    case = bench.case
    part = case.corpus.split("estimate")
    means = sl.concepts.text_means(case.model, part, layers=case.layers)
    vectors = {
        concept: np.concatenate([means[f"{concept}@{lang}"].numpy() for lang in case.langs])
        for concept in case.concepts
    }
    groups = {"language": np.repeat(case.langs, len(part)).tolist()}
    if case.name == "gender":
        made = sl.concepts.occupation_groups(part.numbers)
        groups |= {name: column * len(case.langs) for name, column in made.items()}
    else:
        groups["pair"] = [f"{number}" for number in part.numbers] * len(case.langs)
    found = []
    for name in (None, *groups):
        folds = min(5, len(set(groups[name]))) if name else 5
        table = sl.concepts.held_out_probe(
            vectors, groups, by=name, layers=case.layers, folds=folds, shuffles=1
        )
        found.append(table.assign(held="single texts, at random" if name is None else name))
    bench.keep("probe", pd.concat(found))


STEPS = {
    "steer": steer,
    "transfer": transfer,
    "shares": shares,
    "features": features,
    "probe": probe,
}


if __name__ == "__main__":
    sys.exit(main())
