"""Methods that change neurons and heads, beside the trained directions: AUSteer, which scales
neurons by hooks, and Steer2Edit, which writes into the weights."""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

import steerlab as sl
from steerlab.core.directions import Directions
from steerlab.edits import Operator
from steerlab.models.counting import counted

SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)  # of AUSteer
RHOS, ALPHAS = (1.0, 2.0, 4.0, 8.0), (0.05, 0.2)  # of Steer2Edit
KINDS = ("neurons", "heads and neurons")


@dataclass
class Written:
    """What Steer2Edit reached on test, how it was chosen, and what it took to fit."""

    setting: str
    rows: pd.DataFrame
    seconds: float
    tokens: int


def atoms(bed: Any) -> dict[str, tuple[Directions, float, int]]:
    """AUSteer's units and its controls, with the seconds and tokens that they took."""
    begun = time.process_time()
    texts = bed.corpus.split("estimate").take(bed.pairs)
    with counted(bed.model) as count:
        vectors = sl.collect_texts(bed.model, texts, site="mlp_post", read="last")
    tokens = count.tokens
    chosen = sl.units.austeer(vectors, source=bed.source)
    made = sl.units.momenta(chosen, vectors, source=bed.source)
    seconds = time.process_time() - begun
    of = {
        "austeer, random units": sl.units.random_atoms(chosen, seed=bed.seed),
        "austeer, shuffled labels": sl.units.austeer(vectors, source=bed.source, shuffled=bed.seed),
    }
    controls = {
        name: (sl.units.momenta(each, vectors, source=bed.source), seconds, tokens)
        for name, each in of.items()
    }
    return {"austeer": (made, seconds, tokens), **controls}


def written(bed: Any, means: Directions) -> Iterator[tuple[str, Written]]:
    """Steer2Edit at the setting that dev chooses, and a random direction there."""
    begun = time.process_time()
    texts = bed.corpus.split("estimate").take(bed.pairs)
    with counted(bed.model) as count:
        readings = [
            sl.collect(bed.model, texts, site=site, also=[], progress=False)
            for site in ("attn_z", "mlp_post")
        ]
    seconds = time.process_time() - begun
    tokens = count.tokens
    scores = {}
    for alpha, kind, rho in itertools.product(ALPHAS, KINDS, RHOS):
        rows = _under(bed, means, readings, "dev", (alpha, kind, rho))
        if rows is not None:
            scores[alpha, kind, rho] = rows["joint"].mean()
    alpha, kind, rho = best = max(scores, key=lambda key: scores[key])
    setting = f"{kind}, ρ {rho:g}, α {alpha:g}"
    for name, seed in (("steer2edit", None), ("steer2edit, random direction", bed.seed)):
        rows = _under(bed, means, readings, "test", best, seed)
        if rows is not None:
            yield name, Written(setting, rows, seconds, tokens)


def _under(
    bed: Any,
    means: Directions,
    readings: list[Any],
    split: str,
    setting: tuple[float, str, float],
    seed: int | None = None,
) -> pd.DataFrame | None:
    """What the model with changed weights says; None where no component agrees enough."""
    alpha, kind, rho = setting
    try:
        weights = sl.steer2edit(
            bed.model,
            *readings,
            source=bed.source,
            target=bed.target,
            rho_heads=rho if "heads" in kind else None,
            rho_neurons=rho,
            alpha=alpha,
            random=seed,
        )
    except sl.SteerlabError:
        return None
    record = Operator(
        make=lambda direction, *, rho: weights,
        knob="rho",
        unit="1/√d",
        grid=(rho,),
        whole=True,  # it asks no direction, and is at all layers
        no_twin="its random direction is the control",
    )
    rows: pd.DataFrame = bed.sweep(split, {"fit": means}, {"steer2edit": record})
    return rows
