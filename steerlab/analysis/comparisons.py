"""Every comparison of a table: paired tests, corrected as one family, and what so many sentences
could have shown."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from steerlab.analysis.choices import choose_each, held_out
from steerlab.analysis.intervals import by_sentence
from steerlab.analysis.results import outputs
from steerlab.analysis.tests import (
    ALPHA,
    DRAWS,
    POWER,
    Paired,
    clustering,
    detectable,
    holm,
    paired_test,
)
from steerlab.core.errors import SteerlabError

FINE = 200  # draws for each comparison at least, so that p can be small enough after correction

Pair = tuple[str, str]


def comparisons(
    tables: Mapping[str, pd.DataFrame],
    pairs: Sequence[Pair],
    *,
    family: str,
    value: str = "joint",
    seed: int = 0,
) -> dict[str, Any]:
    """Paired tests of `value` for (a, b) pairs of tables by name, Holm's correction over all of
    them, their power.

    `family` says in words what is compared. Gives {"score", "family", "comparisons", "sentences",
    "least", "alpha", "power", "pairs": {a: {b: {"difference", "p", "p_holm", "detects",
    "detects_holm"}}}}. "least" is the smallest p that there can be, before correction; "detects"
    what a comparison could have shown at 80 % power, by itself and at Holm's first step, None where
    nothing varies or no difference could be seen.
    """
    if not pairs:
        raise SteerlabError("a family without a pair was to be compared; name two tables or more")
    sides = {name: outputs(tables[name]) for name in {name for pair in pairs for name in pair}}
    draws = max(DRAWS, FINE * len(pairs) - 1)
    tests = [_test(sides[a], sides[b], value, draws, seed) for a, b in pairs]
    adjusted = holm([test.p for test in tests])
    told: dict[str, dict[str, Any]] = {}
    for (a, b), test, p in zip(pairs, tests, adjusted, strict=True):
        seen = [_known(detectable(test.spread, test.sentences, family=m)) for m in (1, len(pairs))]
        told.setdefault(a, {})[b] = {
            "difference": test.difference,
            "p": test.p,
            "p_holm": p,
            "detects": seen[0],
            "detects_holm": seen[1],
        }
    sentences = min(test.sentences for test in tests)
    return {
        "score": value,
        "family": family,
        "comparisons": len(pairs),
        "sentences": sentences,
        "least": max(2.0 ** (1 - sentences), 1 / (1 + draws)),
        "alpha": ALPHA,
        "power": POWER,
        "pairs": told,
    }


def together(rows: pd.DataFrame, value: str = "joint") -> dict[str, float | None]:
    """How far the outputs of a sentence go together, and how many independent ones they are
    worth."""
    table = outputs(rows)
    found = asdict(clustering(table[value].to_numpy(float), table["sentence"].to_numpy()))
    return {name: _known(number) for name, number in found.items()} | {"outputs": float(len(table))}


def _test(a: pd.DataFrame, b: pd.DataFrame, value: str, draws: int, seed: int) -> Paired:
    columns = [
        part
        for rows in (a, b)
        for part in (rows[value].to_numpy(float), rows["sentence"].to_numpy())
    ]
    return paired_test(*columns, draws=draws, seed=seed)


def _known(number: float) -> float | None:
    """A number that JSON can hold, or nothing."""
    return number if math.isfinite(number) else None


def against(
    tables: Mapping[str, pd.DataFrame],
    methods: Sequence[str],
    controls: Sequence[str],
    *,
    main: str,
    seed: int = 0,
) -> dict[str, Any]:
    """The family of a results table: every method less every control, and every other method
    less the main one."""
    others = [method for method in methods if method != main]
    pairs = [(method, control) for method in methods for control in controls] + [
        (other, main) for other in others
    ]
    family = f"{len(methods)} {'methods' if others else 'method'} less {len(controls)} controls"
    family += f", and the {len(others)} other methods less the main one" if others else ""
    return comparisons(tables, pairs, family=family, seed=seed)


def by_language(dev: pd.DataFrame, methods: Sequence[str], *, seed: int = 0) -> dict[str, Any]:
    """What a choice for each method and target gains over one for each method, and the settings
    that it takes.

    Scored on dev by `held_out`, two folds: no line had a part in its own choice, but each was made
    on half of them.
    """
    rows = dev[dev["method"].isin(methods)]
    sides = held_out(rows)
    names = ("per method", "per method and language")
    tables = {
        f"{m}, {name}": side[side["method"] == m]
        for name, side in zip(names, sides, strict=True)
        for m in methods
    }
    pairs = [(f"{method}, {names[1]}", f"{method}, {names[0]}") for method in methods]
    found = comparisons(
        tables,
        pairs,
        family=f"{len(methods)} methods, a choice for each language less one",
        seed=seed,
    )
    tests = found.pop("pairs")
    chosen = choose_each(rows)
    found["methods"] = {
        method: {name: _joint(tables[f"{method}, {name}"], seed) for name in names}
        | {
            "test": tests[a][b],
            "choices": {iso: list(setting) for iso, setting in chosen[method].items()},
        }
        for method, (a, b) in zip(methods, pairs, strict=True)
    }
    return found


def _joint(rows: pd.DataFrame, seed: int) -> list[float]:
    table = outputs(rows)
    sentences, strata = table["sentence"].to_numpy(), table["target"].to_numpy()
    return list(by_sentence(table["joint"].to_numpy(float), sentences, strata=strata, seed=seed))
