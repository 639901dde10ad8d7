"""Every comparison of a table: paired tests, corrected as one family, and what so many sentences
could have shown."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from steerlab.analysis.choices import choose_each, held_out
from steerlab.analysis.intervals import by_sentence
from steerlab.analysis.results import SEED, outputs
from steerlab.analysis.sentences import matched
from steerlab.analysis.tests import (
    ALPHA,
    DRAWS,
    POWER,
    Paired,
    clustering,
    detectable,
    holm,
    paired_test,
    sentences_needed,
)
from steerlab.core.errors import SteerlabError

# Random draws for each comparison of a family, at least: Holm multiplies the smallest p by the
# number of comparisons, so the smallest that can be drawn must shrink with it.
FINE = 200

Pair = tuple[str, str]


def comparisons(
    tables: Mapping[str, pd.DataFrame],
    pairs: Sequence[Pair],
    *,
    family: str,
    value: str = "joint",
    seed: int = 0,
) -> dict[str, Any]:
    """Paired tests of one score for pairs of tables, with Holm's correction over all of them.

    The result has:

    - "score", "family", "comparisons", "sentences", "alpha", "power": what was tested, and how;
    - "least": the smallest p that a comparison can have, before correction;
    - "coincide": lists of names whose rows have the same text for every output, such as a method
      that comes down to another on this model;
    - "pairs": {a: {b: {"difference", "p", "p_holm", "detects", "detects_holm"}}}, where "detects"
      is the smallest difference that one comparison sees with 80 % power by itself, and
      "detects_holm" at Holm's first step; None where nothing varies or no difference could be seen.

    What coincides is compared once: "comparisons" counts, and Holm's correction takes, the same two
    sides as one comparison, and names that coincide are not compared with each other (their p is
    1). Raises `SteerlabError` for a family without a pair.

    Args:
        tables: rows of one setting each, by name.
        pairs: the names (a, b) of the tables to compare; the difference is a less b.
        family: says in words what is compared.
        value: the column to compare.
        seed: decides the random draws.
    """
    if not pairs:
        raise SteerlabError("a family without a pair was to be compared; name two tables or more")
    # Each table once, though a method stands in many pairs.
    sides = {}
    for pair in pairs:
        for name in pair:
            if name not in sides:
                sides[name] = outputs(tables[name])
    draws = max(DRAWS, FINE * len(pairs) - 1)
    tests = [_test(sides[a], sides[b], value, draws, seed) for a, b in pairs]
    first = _coinciding({name: tables[name] for name in sides}, value)
    corrected, size = _family(pairs, tests, first)
    results: dict[str, dict[str, Any]] = {}
    for (a, b), test, p_holm in zip(pairs, tests, corrected, strict=True):
        alone = detectable(test.spread, test.sentences, family=1)
        in_family = detectable(test.spread, test.sentences, family=size)
        results.setdefault(a, {})[b] = {
            "difference": test.difference,
            "p": test.p,
            "p_holm": p_holm,
            "detects": _finite(alone),
            "detects_holm": _finite(in_family),
        }
    sentences = min(test.sentences for test in tests)
    return {
        "score": value,
        "family": family,
        "comparisons": size,
        "coincide": _groups(first),
        "sentences": sentences,
        # Two of all 2^n sign patterns are as extreme as possible; a random test counts itself too.
        "least": max(2.0 ** (1 - sentences), 1 / (1 + draws)),
        "alpha": ALPHA,
        "power": POWER,
        "pairs": results,
    }


def together(rows: pd.DataFrame, value: str = "joint") -> dict[str, float | None]:
    """How strongly the outputs of one sentence go together, and how many independent outputs they
    are worth.

    The fields of `tests.Clustering`, None where one has no value, and the number of "outputs".
    """
    table = outputs(rows)
    fields = asdict(clustering(table[value].to_numpy(float), table["sentence"].to_numpy()))
    result = {name: _finite(number) for name, number in fields.items()}
    result["outputs"] = float(len(table))
    return result


def _family(
    pairs: Sequence[Pair], tests: Sequence[Paired], first: Mapping[str, str]
) -> tuple[list[float], int]:
    """The corrected p of each pair, and how many comparisons there are: those of the same two sides
    are one, and those of one side with itself are none."""
    # The p of each comparison, by its two sides.
    distinct: dict[frozenset[str], float] = {}
    keys = []
    for (a, b), test in zip(pairs, tests, strict=True):
        key = frozenset((first[a], first[b]))
        keys.append(key)
        if len(key) == 2:
            # Signs are drawn anew for each order of the sides, so the larger of two p is kept.
            distinct[key] = max(test.p, distinct.get(key, 0.0))
    adjusted: dict[frozenset[str], float] = {}
    if distinct:
        adjusted = dict(zip(distinct, holm(list(distinct.values())), strict=True))
    return [adjusted.get(key, 1.0) for key in keys], max(1, len(distinct))


def _coinciding(tables: Mapping[str, pd.DataFrame], value: str) -> dict[str, str]:
    """For each name the first that has the same outputs: the same text and score of every sentence
    and target. Rows without their texts coincide with no others."""
    first: dict[str, str] = {}
    seen: dict[tuple[Any, ...], str] = {}
    for name, rows in tables.items():
        key: tuple[Any, ...] = (name,)
        if "output" in rows.columns:
            order = rows.sort_values(["target", "sentence", "output"], kind="stable")
            columns = order[["target", "sentence", "output", value]]
            key = tuple(map(tuple, columns.to_numpy(object).tolist()))
        first[name] = seen.setdefault(key, name)
    return first


def _groups(first: Mapping[str, str]) -> list[list[str]]:
    """The names that coincide, in lists of two or more."""
    groups: dict[str, list[str]] = {}
    for name, leader in first.items():
        groups.setdefault(leader, []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def _test(a: pd.DataFrame, b: pd.DataFrame, value: str, draws: int, seed: int) -> Paired:
    return paired_test(
        a[value].to_numpy(float),
        a["sentence"].to_numpy(),
        b[value].to_numpy(float),
        b["sentence"].to_numpy(),
        a_seeds=a[SEED].to_numpy() if SEED in a else None,
        b_seeds=b[SEED].to_numpy() if SEED in b else None,
        draws=draws,
        seed=seed,
    )


def _finite(number: float) -> float | None:
    """The number, or None for NaN and infinity, which JSON does not have."""
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
    less the main one; and "two_best" (`two_best`).

    Args:
        tables: rows of one setting each, by name of the method or control.
        methods: the methods to compare.
        controls: what each of them is compared with.
        main: the method that the others are compared with too.
        seed: decides the random draws.
    """
    others = [method for method in methods if method != main]
    pairs = [(method, control) for method in methods for control in controls]
    pairs += [(other, main) for other in others]
    noun = "methods" if others else "method"
    family = f"{len(methods)} {noun} less {len(controls)} controls"
    if others:
        family += f", and the {len(others)} other methods less the main one"
    result = comparisons(tables, pairs, family=family, seed=seed)
    return result | {"two_best": two_best(tables, methods)}


def two_best(
    tables: Mapping[str, pd.DataFrame], methods: Sequence[str], *, value: str = "joint"
) -> dict[str, Any] | None:
    """The two methods with the highest mean score, and how many sentences would tell them apart.

    {"best", "next", "difference", "needed"}: `tests.sentences_needed` at `POWER`, from their paired
    differences; None where no number of sentences would do. Of methods that coincide the first
    stands for all. None where fewer than two are left.

    Args:
        tables: rows of one setting each, by name.
        methods: the methods to choose from.
        value: the column of the score.
    """
    first = _coinciding({name: tables[name] for name in methods}, value)
    apart = [name for name in methods if first[name] == name]
    if len(apart) < 2:
        return None
    sides = {name: outputs(tables[name]) for name in apart}
    best, second = sorted(apart, key=lambda name: sides[name][value].mean(), reverse=True)[:2]
    a, b = sides[best], sides[second]
    by_a, by_b = matched(
        a[value].to_numpy(float),
        a["sentence"].to_numpy(),
        b[value].to_numpy(float),
        b["sentence"].to_numpy(),
    )
    differences = by_a.each - by_b.each
    difference = float(differences.mean())
    spread = float(differences.std(ddof=1)) if len(differences) > 1 else math.nan
    return {
        "best": best,
        "next": second,
        "difference": difference,
        "needed": _finite(sentences_needed(difference, spread)),
    }


def by_language(dev: pd.DataFrame, methods: Sequence[str], *, seed: int = 0) -> dict[str, Any]:
    """What a choice for each method and target gains over one for each method, and the settings
    that it takes.

    It is scored on dev by `held_out` with two folds: no line had a part in its own choice, but each
    choice was made on half of the lines. The result is that of `comparisons`, with "methods" in
    place of "pairs": {method: {"per method", "per method and language": value, low and high,
    "test": one of the pairs, "choices": {target: [layer, strength]}}}.

    Args:
        dev: rows of the dev split.
        methods: the methods to choose for.
        seed: decides the random draws.
    """
    # Controls are left out: they are no methods to choose for.
    rows = dev[dev["method"].isin(methods)]
    per_method, per_target = held_out(rows)
    once = "per method"
    each = "per method and language"
    tables = {}
    for name, side in ((once, per_method), (each, per_target)):
        for method in methods:
            tables[f"{method}, {name}"] = side[side["method"] == method]
    pairs = [(f"{method}, {each}", f"{method}, {once}") for method in methods]
    result = comparisons(
        tables,
        pairs,
        family=f"{len(methods)} methods, a choice for each language less one",
        seed=seed,
    )
    # Each method is in one pair, so the result is by method instead.
    tests = result.pop("pairs")
    chosen = choose_each(rows)
    result["methods"] = {}
    for method, (a, b) in zip(methods, pairs, strict=True):
        settings = {lang: list(setting) for lang, setting in chosen[method].items()}
        result["methods"][method] = {
            once: _joint(tables[b], seed),
            each: _joint(tables[a], seed),
            "test": tests[a][b],
            "choices": settings,
        }
    return result


def _joint(rows: pd.DataFrame, seed: int) -> list[float]:
    """The mean of `joint` with its interval: [value, low, high]."""
    table = outputs(rows)
    sentences = table["sentence"].to_numpy()
    targets = table["target"].to_numpy()
    interval = by_sentence(
        table["joint"].to_numpy(float), sentences, share=True, strata=targets, seed=seed
    )
    return list(interval)
