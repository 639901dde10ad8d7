"""Do the languages of a family lie near one another, and is it more than the tokens that they
share."""

from dataclasses import asdict
from typing import Any

import pandas as pd

from steerlab.analysis.geometry import (
    FamilyNeighbours,
    beyond,
    family_neighbours,
    have_relatives,
    scripts,
    unigrams,
    within_script,
)
from steerlab.analysis.tests import holm
from steerlab.core.corpus import Corpus
from steerlab.core.directions import Directions
from steerlab.core.moments import Moments
from steerlab.engine.collect import collect
from steerlab.figures import cophenetic, cophenetic_null
from steerlab.models.model import Model

# The names of the neighbours that are compared, as tables and figures show them.
MEANS = "main"
UNIGRAMS = "token unigrams"
EMBEDDING = "embedding layer"
LATIN = "within Latin script"


def families_of(
    model: Model, moments: Moments, texts: Corpus, *, seed: int
) -> dict[str, FamilyNeighbours]:
    """Family accuracy of the language means, and of what shared tokens alone would give; empty if
    no two languages are of one family.

    Languages of a family share tokens, so that anything made of token embeddings clusters by
    family: the means have to do better than token counts and than the embedding layer
    (`family_summary` tests it). They often share a script too: labels are permuted within scripts.
    """
    langs = texts.langs
    if not have_relatives(langs):
        return {}
    options: dict[str, Any] = {"within": scripts(langs), "seed": seed}
    means = moments.mean.transpose(0, 1).numpy()
    embedded = collect(model, texts, layers=[0], site="resid_pre", also=[]).mean[:, 0].numpy()
    counts = unigrams(texts, model.tokenizer)
    neighbours = {
        MEANS: family_neighbours(means, langs, **options),
        UNIGRAMS: family_neighbours(counts[None], langs, layers=[-1], **options),
        EMBEDDING: family_neighbours(embedded[None], langs, layers=[-1], **options),
    }
    latin = within_script(langs)
    of_latin = [langs[i] for i in latin]
    if have_relatives(of_latin):
        neighbours[LATIN] = family_neighbours(means[:, latin], of_latin, seed=seed)
    return neighbours


def best_layer(neighbours: FamilyNeighbours) -> int:
    """The layer at which a language's nearest neighbour is of its family most often."""
    return neighbours.layers[neighbours.best]


def family_table(neighbours: dict[str, FamilyNeighbours]) -> pd.DataFrame:
    """Layer, value and series of each accuracy, and of what permuted labels reach."""
    rows = []
    for name, accuracies in neighbours.items():
        series = "language means" if name == MEANS else name
        for layer, value in zip(accuracies.layers, accuracies.accuracy, strict=True):
            rows.append({"layer": layer, "value": value, "series": series})
    null = neighbours[MEANS].null
    rows.append({"layer": -1, "value": null, "series": "null: 95 % of labels permuted in scripts"})
    return pd.DataFrame(rows)


def family_summary(
    neighbours: dict[str, FamilyNeighbours], directions: Directions, *, seed: int = 0
) -> dict[str, Any]:
    """The accuracies and the p-values as the summary has them.

    "beyond" has how many more languages have a neighbour of their family than by the token unigrams
    and by the embedding layer: the fields of `geometry.Beyond`, and "p_holm", corrected for both.
    "cophenetic_null" has the mean and the 95 % quantile of vectors without structure.
    """
    if not neighbours:
        return {}
    main = neighbours[MEANS]
    layer = best_layer(main)
    vectors = directions.at(layer).vectors[:, 0]
    summary = {
        "layer": layer,
        "nearest_neighbour": main.accuracy[main.best],
        "p": main.p,
        "n": main.n,
        "cophenetic": cophenetic(vectors),
        "cophenetic_null": list(cophenetic_null(*vectors.shape)),
        "unigram_nearest_neighbour": neighbours[UNIGRAMS].accuracy[0],
        "embedding_nearest_neighbour": neighbours[EMBEDDING].accuracy[0],
        "beyond": _beyond(neighbours, seed),
    }
    if LATIN in neighbours:
        latin = neighbours[LATIN]
        summary["latin_nearest_neighbour"] = max(latin.accuracy)
        summary["latin_p"] = latin.p
        summary["latin_n"] = latin.n
    return summary


def _beyond(neighbours: dict[str, FamilyNeighbours], seed: int) -> dict[str, dict[str, Any]]:
    """The means against the unigrams and against the embedding layer, in one family of tests."""
    others = {"unigram": neighbours[UNIGRAMS], "embedding": neighbours[EMBEDDING]}
    found = {
        name: asdict(beyond(neighbours[MEANS], other, seed=seed)) for name, other in others.items()
    }
    corrected = holm([item["p"] for item in found.values()])
    for item, p in zip(found.values(), corrected, strict=True):
        item["p_holm"] = p
    return found
