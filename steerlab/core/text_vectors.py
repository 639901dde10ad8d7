"""A vector for each text: what chooses among texts reads, and sums cannot tell."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.core.sites import hook_name


@dataclass(frozen=True, eq=False)
class TextVectors:
    """The mean vector of each text, by language. It is for small corpora: nothing is summed.

    Raises `SteerlabError` for shapes that do not fit together, NaN and infinity.

    Args:
        vectors: of each language, [text layer width].
        layers: the layers, in the order of the tensors.
        site: where in a layer.
        provenance: what made them: model, corpus.
    """

    vectors: Mapping[str, Float[Tensor, "text layer width"]]
    layers: tuple[int, ...]
    site: str = "resid_post"
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shapes = {value.shape[1:] for value in self.vectors.values()}
        if len(shapes) != 1 or next(iter(shapes))[0] != len(self.layers):
            raise SteerlabError(
                f"the vectors have the shapes {[list(shape) for shape in shapes]} behind their "
                f"texts, and there are {len(self.layers)} layers; give [text layer width]"
            )
        for layer in self.layers:
            hook_name(self.site, layer)
        for lang, value in self.vectors.items():
            if not len(value):
                raise SteerlabError(f"there is no text of {lang!r}; leave it out")
            if not torch.isfinite(value).all():
                raise SteerlabError(f"the vectors of {lang!r} hold NaN or infinity")

    @property
    def langs(self) -> tuple[str, ...]:
        """The languages."""
        return tuple(self.vectors)

    def of(self, lang: str) -> Float[Tensor, "text layer width"]:
        """The vectors of a language; raises for one that is not there."""
        if lang not in self.vectors:
            raise SteerlabError(f"there is no text of {lang!r}; there are {' '.join(self.langs)}")
        return self.vectors[lang].double()

    def differences(self, source: str, target: str) -> Float[Tensor, "text layer width"]:
        """Target less source, text by text; raises where they are not the same texts."""
        start, end = self.of(source), self.of(target)
        if source == target:
            raise SteerlabError(f"source and target are both {source!r}; give two")
        if len(start) != len(end):
            raise SteerlabError(
                f"there are {len(start)} texts of {source!r} and {len(end)} of {target!r}; pairs "
                "need the same texts in both"
            )
        return end - start
