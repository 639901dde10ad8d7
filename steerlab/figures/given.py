"""What a figure takes: an array, or the `Directions` or `Moments` that one holds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from steerlab.analysis import geometry
from steerlab.analysis.geometry import separation
from steerlab.core.errors import SteerlabError


def is_held(given: Any) -> bool:
    """Whether it is an object with languages and layers of its own, such as `Directions` or
    `Moments`."""
    return hasattr(given, "langs") and hasattr(given, "layers")


def by_layer(given: Any) -> tuple[np.ndarray, list[str], list[int]]:
    """(vectors [layer lang width], languages, layers) of `Directions`, or of `Moments`, whose
    means are the vectors."""
    vectors = given.vectors if hasattr(given, "vectors") else given.mean
    return as_array(vectors).swapaxes(0, 1), list(given.langs), list(given.layers)


def at_layer(
    given: Any, langs: Sequence[str] | None, layer: int | None, figure: str
) -> tuple[np.ndarray, list[str], int | None]:
    """(vectors [lang width], languages, layer) of one layer.

    Raises `SteerlabError` for an array without languages, for an object of several layers of which
    none was named, and for a layer that it has not.

    Args:
        given: an array [lang width], `Directions` or `Moments`.
        langs: the languages of an array.
        layer: the layer; of an object of one layer it need not be named.
        figure: the name of the function, for the message.
    """
    if not is_held(given):
        if langs is None:
            raise SteerlabError(
                f"{figure} was given an array without its languages; give langs=, or Directions or "
                "Moments, which have them"
            )
        return as_array(given), list(langs), layer
    vectors, held, layers = by_layer(given)
    if langs is not None and list(langs) != held:
        raise SteerlabError(f"{figure} takes the languages of what it draws; leave langs= out")
    if layer is None and len(layers) != 1:
        raise SteerlabError(
            f"{figure} was given {len(layers)} layers ({', '.join(map(str, layers))}); it draws "
            f"one: choose it, as in {figure}(directions.at(layer))"
        )
    layer = layers[0] if layer is None else layer
    if layer not in layers:
        raise SteerlabError(f"no layer {layer} here; there are {', '.join(map(str, layers))}")
    return vectors[layers.index(layer)], held, layer


def as_array(vectors: Any) -> np.ndarray:
    """An array of float64 of a tensor, on whatever device, or of what numpy takes."""
    if hasattr(vectors, "detach"):
        vectors = vectors.detach().cpu().double().numpy()
    return np.asarray(vectors, dtype=float)


def apart_by_layer(given: Any, texts: Any = None) -> pd.DataFrame:
    """How far the languages lie apart by layer, as far as what is given says it.

    Of `Moments` with their scatter what `geometry.separation` says; of `Directions` and of other
    moments the mean distance of two languages over their mean length, `gap_ratio`.
    """
    if getattr(given, "within", None) is not None:
        return separation(given, texts)
    vectors, langs, layers = by_layer(given)
    return geometry.by_layer(vectors, langs, layers=layers)[["layer", "gap_ratio"]]


def depth_table(given: Any) -> pd.DataFrame:
    """What `figures.depth` draws: `geometry.by_layer`, and the share of languages whose neighbour
    is of their family, NaN where none has a relative."""
    vectors, langs, layers = by_layer(given)
    table = geometry.by_layer(vectors, langs, layers=layers).assign(accuracy=np.nan, null=np.nan)
    if geometry.have_relatives(langs):
        kin = geometry.family_neighbours(vectors, langs, layers=layers)
        table = table.assign(accuracy=kin.accuracy, null=kin.null)
    made = getattr(given, "provenance", {}).get("model", {})
    table.insert(0, "model", str(made.get("name", "model")))
    return table


def families_table(given: Any) -> pd.DataFrame:
    """What `figures.families` draws: the share by layer, and what permuted labels reach."""
    vectors, langs, layers = by_layer(given)
    kin = geometry.family_neighbours(vectors, langs, layers=layers, within=geometry.scripts(langs))
    rows = [
        {"layer": layer, "value": value, "series": "language vectors"}
        for layer, value in zip(kin.layers, kin.accuracy, strict=True)
    ]
    null = "null: 95 % of labels permuted in scripts"
    return pd.DataFrame([*rows, {"layer": -1, "value": kin.null, "series": null}])
