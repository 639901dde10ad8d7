"""Sweeps over layers, languages, strengths, estimators and operators, whole or raced."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

import steerlab.estimate
import steerlab.racing as racing
from steerlab.cells import Bench, Cell
from steerlab.collection import collect
from steerlab.corpora import Corpus
from steerlab.directions import Directions
from steerlab.langid import identifier
from steerlab.model import Model, load
from steerlab.terms import SteerlabError

OPERATORS = ("add", "rotate")
GRIDS = {"add": (0.5, 1.0, 1.5, 2.0), "rotate": (0.25, 0.5, 1.0, 1.5), "ablate": (0.5, 1.0)}


def method_name(estimator: str, operator: str) -> str:
    return estimator if operator == "add" else f"{estimator}_{operator}"


def sweep(
    model: Any,
    corpus: Corpus,
    *,
    source: str = "en",
    targets: Sequence[str] | None = None,
    estimators: Sequence[str] = ("diffmean",),
    operators: Sequence[str] = ("add",),
    layers: Sequence[int] | None = None,
    strengths: Sequence[float] | None = None,
    split: str = "dev",
    limit: int | None = None,
    form: str = "line",
    lid: str | Path | None = None,
    out: str | Path | None = None,
    race: bool = False,
    seed: int = 0,
    batch: int | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Steer every (estimator, operator, layer, strength, source → target) and score every sentence of a split.

    Directions come from the corpus' `estimate` split. Without `strengths` each operator takes its own grid: `add` in
    natural gaps, `rotate` in shares of the angle between the two means. With `out`, a folder, a finished cell is never
    run twice. Gives one tidy row per output. With `race`, when only the best layer and strength are wanted, settings
    that fall behind stop early, `seed` being the order of the lines; how far each one went is in `rows.attrs["race"]`.
    """
    model = load(model)
    chosen = list(range(model.n_layers)) if layers is None else list(layers)
    asked = [iso for iso in corpus.langs if iso != source] if targets is None else list(targets)
    for iso in [source, *asked]:
        corpus[iso]
    if source in asked:
        raise SteerlabError(f"the source {source!r} is among the targets; a direction needs two languages")
    cells = [
        Cell(method_name(estimator, operator), operator, layer, strength, source, target, split, (estimator,), form)
        for estimator in estimators
        for operator in operators
        for layer in chosen
        for strength in grid(operator, strengths)
        for target in asked
    ]
    if not cells:
        raise SteerlabError("the grid is empty; give at least one estimator, operator, layer, strength and target")
    fits = fit(model, corpus, estimators, layers=chosen, source=source, form=form)
    folder = Path(out) if out is not None else None
    bench = Bench(model, corpus, fits, identifier(lid), {split: limit}, folder, batch)
    if not race:
        return bench.run(cells, title=f"{len(cells)} cells", progress=progress)
    raced = racing.race(bench, cells, seed=seed, title=f"{len(cells)} cells", progress=progress)
    raced.rows.attrs["race"] = raced.settings.to_dict("records")
    return raced.rows


def grid(operator: str, strengths: Sequence[float] | None = None) -> tuple[float, ...]:
    """An operator's own strengths, or the ones given."""
    if operator not in OPERATORS:
        raise SteerlabError(f"a sweep steers with {' or '.join(OPERATORS)}, not with {operator!r}")
    return GRIDS[operator] if strengths is None else tuple(strengths)


def fit(
    model: Model, corpus: Corpus, estimators: Sequence[str], *, layers: Sequence[int], source: str, form: str = "line"
) -> dict[str, Directions]:
    """Directions by estimator name, from one pass over the `estimate` split."""
    if unknown := [name for name in estimators if name not in steerlab.estimate.__all__]:
        raise SteerlabError(f"there is no estimator {unknown[0]!r}; there are {', '.join(steerlab.estimate.__all__)}")
    also = sorted({part for name in estimators for part in steerlab.estimate.NEEDS.get(name, ())})
    moments = collect(model, corpus.split("estimate"), layers=layers, source=source, form=form, also=also)
    return {name: getattr(steerlab.estimate, name)(moments) for name in estimators}
