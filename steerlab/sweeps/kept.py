"""Directions in a run's folder: each file says which one it is, and of which model."""

from dataclasses import replace
from pathlib import Path

from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.fingerprints import same_weights, unlike
from steerlab.models.model import Model


def keep(directions: Directions, file: Path) -> None:
    """Save directions in a run's folder, with the name of their file, which says what decided
    them."""
    replace(directions, provenance={**directions.provenance, "kept_as": file.name}).save(file)


def kept(file: Path, model: Model) -> Directions:
    """The directions that `keep` saved; raises where the file is another one's under this name."""
    found = Directions.load(file)
    name = found.provenance.get("kept_as")
    need_directions(file.name, found, model)
    if name not in (None, file.name):  # None where an older version kept them
        raise SteerlabError(
            f"{file} holds the directions of {name}, which were put in its place; delete it and "
            "run again"
        )
    return found


def need_directions(name: str, directions: Directions, model: Model) -> None:
    """Raise where directions are of another model, of another width, or at layers that the model
    does not have."""
    maker = directions.provenance.get("model", {})
    # Released directions have no fingerprint, and are checked by their width alone.
    if maker.get("processing") not in (None, model.processing):
        raise SteerlabError(
            f"directions {name!r} were made with {maker['processing']}, and {model.name} has "
            f"{model.processing}: their activations are not the same; collect and fit again"
        )
    made_with = maker.get("fingerprint")
    if made_with is not None and not same_weights(made_with, model.fingerprint):
        raise SteerlabError(
            f"directions {name!r} were made with {maker.get('name')} ({made_with}), not "
            f"with {model.name} ({model.fingerprint}); directions of one model mean nothing in "
            f"another: collect and fit again{unlike(made_with, model.fingerprint)}"
        )
    width = model.width_of(directions.site)
    if directions.width != width:
        raise SteerlabError(
            f"directions {name!r} have width {directions.width}, and {model.name} has {width} at "
            f"{directions.site}; they are of another model: collect and fit again"
        )
    for layer in directions.layers:
        model.need_layer(layer)
