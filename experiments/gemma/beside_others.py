"""How languages lie in Gemma 3 270M, beside polyglot and the two 8B models of docs/atlas.md.

The same languages and the same statistics in all of them, at the same shares of the depth. The
means of the 8B models are CLaS-Bench's release; where a folder with them is not there, they are
left out.
"""

from pathlib import Path
from typing import Any

import numpy as np
from gemma_bed import Bed

import steerlab as sl
from steerlab.analysis import geometry
from steerlab.estimate.released import language_means

RELEASED = {"Llama-3.1-8B-Instruct": "llama-3.1-8b-instruct", "Aya-Expanse-8B": "aya-expanse-8b"}
DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)  # shares of the depth: first layer 0, last layer 1
PERMUTATIONS = 9999
GEMMA, POLYGLOT = "Gemma 3 270M", "polyglot"


def run(bed: Bed, folder: Path) -> dict[str, Any]:
    """By model: statistics at each depth, and how alike the models' distances are.

    Args:
        bed: the model and its texts.
        folder: holds `directions/` with the released means.
    """
    small = sl.diffmean(sl.collect(sl.load(), bed.estimate, also=[]))
    fits = {GEMMA: bed.diffmean, POLYGLOT: small}
    for title, name in RELEASED.items():
        file = folder / "directions" / f"{name}.safetensors"
        if file.exists():
            fits[title] = language_means(file)
    shared = [lang for lang in bed.corpus.langs if all(lang in fit.langs for fit in fits.values())]
    means = {}
    for title, fit in fits.items():
        places = [fit.langs.index(lang) for lang in shared]
        means[title] = fit.means[places].transpose(0, 1).double().numpy()
    return {
        "languages": shared,
        "models": {title: of_model(vectors, shared) for title, vectors in means.items()},
        "alike": alike(means, shared),
        "whole": by_layer(bed.diffmean.means.transpose(0, 1).double().numpy(), bed.corpus.langs),
    }


def layer_at(share: float, depth: int) -> int:
    """The layer at a share of the depth."""
    return round(share * (depth - 1))


def by_layer(means: np.ndarray, langs: Any) -> list[dict[str, float]]:
    table = geometry.by_layer(means, langs)
    columns = ["layer", "raw", "within", "between", "gap_ratio", "effective_rank"]
    return [
        {str(key): value for key, value in row.items()} for row in table[columns].to_dict("records")
    ]


def of_model(means: np.ndarray, langs: list[str]) -> dict[str, Any]:
    """The statistics at each depth, and families against labels permuted within scripts."""
    options: dict[str, Any] = {"within": geometry.scripts(langs), "permutations": PERMUTATIONS}
    kin = geometry.family_neighbours(means, langs, **options)
    first = geometry.family_neighbours(means[:1], langs, **options)
    more = geometry.beyond(kin, first)
    rows = by_layer(means, langs)
    at = [layer_at(share, len(means)) for share in DEPTHS]
    return {
        "layers": len(means),
        "depths": [rows[layer] | {"accuracy": kin.accuracy[layer]} for layer in at],
        "families": {
            "best": kin.layers[kin.best],
            "accuracy": max(kin.accuracy),
            "first": kin.accuracy[0],
            "n": kin.n,
            "p": kin.p,
            "gained": more.gained,
            "lost": more.lost,
            "p of more": more.p,
        },
    }


def alike(means: dict[str, np.ndarray], langs: list[str]) -> dict[str, Any]:
    """How far two models' distances between languages go together, at each depth: the correlation
    of a Mantel test, corrected for the depths."""
    found = {}
    names = list(means)
    for number, one in enumerate(names):
        for other in names[number + 1 :]:
            apart = [
                1
                - geometry.cosine_matrices(means[name])[
                    [layer_at(share, len(means[name])) for share in DEPTHS]
                ]
                for name in (one, other)
            ]
            rows = []
            for share, mine, theirs in zip(DEPTHS, *apart, strict=True):
                test = geometry.mantel(mine[None], {other: theirs}, permutations=PERMUTATIONS)
                row = test.iloc[0]
                p = min(1.0, float(row["p_corrected"]) * len(DEPTHS))
                rows.append({"depth": share, "r": float(row["r"]), "p": p})
            found[f"{one} and {other}"] = rows
    return found
