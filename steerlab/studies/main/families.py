"""Do the languages of a family lie near one another, and is it more than the tokens that they
share."""

from typing import Any

import pandas as pd

from steerlab.analysis.geometry import (
    FamilyNeighbours,
    family_neighbours,
    have_relatives,
    unigrams,
    within_script,
)
from steerlab.core.corpus import Corpus
from steerlab.core.directions import Directions
from steerlab.core.moments import Moments
from steerlab.engine.collect import collect
from steerlab.figures import cophenetic
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
    family: the means have to do better than token counts and than the embedding layer, and to do it
    within one script.
    """
    langs = texts.langs
    if not have_relatives(langs):
        return {}
    means = moments.mean.transpose(0, 1).numpy()
    embedded = collect(model, texts, layers=[0], site="resid_pre", also=[]).mean[:, 0].numpy()
    counts = unigrams(texts, model.tokenizer)
    neighbours = {
        MEANS: family_neighbours(means, langs, seed=seed),
        UNIGRAMS: family_neighbours(counts[None], langs, layers=[-1]),
        EMBEDDING: family_neighbours(embedded[None], langs, layers=[-1]),
    }
    latin = within_script(langs)
    of_latin = [langs[i] for i in latin]
    if have_relatives(of_latin):
        neighbours[LATIN] = family_neighbours(means[:, latin], of_latin)
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
    rows.append({"layer": -1, "value": null, "series": "null: 95 % of permuted labels"})
    return pd.DataFrame(rows)


def family_summary(
    neighbours: dict[str, FamilyNeighbours], directions: Directions
) -> dict[str, Any]:
    """The accuracies and the p-value as the summary has them."""
    if not neighbours:
        return {}
    main = neighbours[MEANS]
    layer = best_layer(main)
    summary = {
        "layer": layer,
        "nearest_neighbour": main.accuracy[main.best],
        "p": main.p,
        "n": main.n,
        "cophenetic": cophenetic(directions.at(layer).vectors[:, 0]),
        "unigram_nearest_neighbour": neighbours[UNIGRAMS].accuracy[0],
        "embedding_nearest_neighbour": neighbours[EMBEDDING].accuracy[0],
    }
    if LATIN in neighbours:
        latin = neighbours[LATIN]
        summary["latin_nearest_neighbour"] = max(latin.accuracy)
        summary["latin_p"] = latin.p
        summary["latin_n"] = latin.n
    return summary
