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
    vectors = sl.collect_texts(bed.model, texts, site="mlp_post", read="last")
    tokens = _tokens(bed, texts)
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


def written(bed: Any) -> Iterator[tuple[str, Written]]:
    """Steer2Edit at the setting that dev chooses, and a random direction there."""
    begun = time.process_time()
    texts = bed.corpus.split("estimate").take(bed.pairs)
    readings = [
        sl.collect(bed.model, texts, site=site, also=[], progress=False)
        for site in ("attn_z", "mlp_post")
    ]
    seconds = time.process_time() - begun
    tokens = sum(int(each.count.sum()) for each in readings)
    keys = list(itertools.product(RHOS, ALPHAS, KINDS))
    scores = {}
    for key in keys:
        weights = _weights(bed, readings, key)
        if weights is not None:
            scores[key] = bed.under("dev", weights)["joint"].mean()
    rho, alpha, kind = best = max(scores, key=lambda key: scores[key])
    setting = f"{kind}, ρ {rho:g}, α {alpha:g}"
    for name, seed in (("steer2edit", None), ("steer2edit, random direction", bed.seed)):
        rows = bed.under("test", _weights(bed, readings, best, seed))
        yield name, Written(setting, rows, seconds, tokens)


def _weights(bed: Any, readings: list[Any], key: tuple[float, float, str], seed: Any = None) -> Any:
    """The changed weights, or None where no component agrees enough."""
    rho, alpha, kind = key
    try:
        return sl.steer2edit(
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


def _tokens(bed: Any, texts: Any) -> int:
    lines = [f"{line}\n" for lang in texts.langs for line in texts[lang]]
    return sum(len(bed.model.tokenizer(line).input_ids) for line in lines)
