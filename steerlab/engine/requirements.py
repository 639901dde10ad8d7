"""Checks that several functions of the engine begin with: of languages, lexicons and
autoencoders."""

from collections.abc import Iterable, Mapping

from steerlab.core.errors import SteerlabError
from steerlab.engine.language_mass import Lexicon
from steerlab.estimate.units import Selection
from steerlab.sae import SAE


def need_source(selection: Selection, source: str) -> None:
    """Raise where the source language has no units in a selection."""
    if source not in selection.langs:
        raise SteerlabError(
            f"the source {source!r} is none of {' '.join(selection.langs)}; take it from these"
        )


def need_words(words: Lexicon, langs: Iterable[str]) -> None:
    """Raise where a lexicon has no tokens of some languages."""
    if missing := [lang for lang in langs if lang not in words.langs]:
        raise SteerlabError(
            f"the lexicon has no tokens of {' '.join(missing)}; make it from text of these too"
        )


def need_sae(saes: Mapping[int, SAE], layer: int, selection: Selection) -> SAE:
    """The layer's autoencoder; one that is not there, and one with other units than those of a
    selection, raise `SteerlabError`.

    Args:
        saes: autoencoders by layer.
        layer: the layer.
        selection: units that were chosen among the autoencoder's latents.
    """
    if layer not in saes:
        layers = ", ".join(map(str, saes)) or "none"
        raise SteerlabError(
            f"there is no autoencoder of layer {layer}; there are {layers}: give one, or use .at"
        )
    sae = saes[layer]
    # A selection does not know its autoencoder; the number of latents and the site are what can be
    # compared.
    if (sae.latents, sae.site) != (selection.units, selection.site):
        raise SteerlabError(
            f"the units were chosen of {selection.units} at {selection.site}, and the autoencoder "
            f"of layer {layer} has "
            f"{sae.latents} at {sae.site}; give the one that they were chosen with"
        )
    return sae
