"""Which units stand for which language, by whatever method."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steerlab.terms import SteerlabError


@dataclass(frozen=True)
class Selection:
    """The units of each language at each layer: `chosen` [lang layer unit], and the `score` by which, higher is more.

    `site` is where they act: `resid_post` for an SAE's latents there, `mlp_post` for neurons.
    """

    method: str
    langs: tuple[str, ...]
    layers: tuple[int, ...]
    site: str
    chosen: Bool[Tensor, "lang layer unit"]
    score: Float[Tensor, "lang layer unit"]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def counts(self) -> pd.DataFrame:
        """How many units each language (down) has at each layer (across)."""
        return pd.DataFrame(self.chosen.sum(-1).numpy(), index=list(self.langs), columns=list(self.layers))

    def of(self, lang: str, layer: int) -> list[int]:
        """A language's units at a layer, the highest score first."""
        chosen, score = (
            self.chosen[self._lang(lang), self._layer(layer)],
            self.score[self._lang(lang), self._layer(layer)],
        )
        found = chosen.nonzero()[:, 0]
        return found[score[found].argsort(descending=True, stable=True)].tolist()

    def at(self, *layers: int) -> "Selection":
        """Only these layers."""
        keep = [self._layer(layer) for layer in layers]
        return replace(self, layers=tuple(layers), chosen=self.chosen[:, keep], score=self.score[:, keep])

    def table(self) -> pd.DataFrame:
        """One row for each chosen unit: method, language, layer, unit, score."""
        rows = [
            {
                "method": self.method,
                "language": iso,
                "layer": layer,
                "unit": unit,
                "score": float(self.score[i, j, unit]),
            }
            for i, iso in enumerate(self.langs)
            for j, layer in enumerate(self.layers)
            for unit in self.of(iso, layer)
        ]
        return pd.DataFrame(rows, columns=["method", "language", "layer", "unit", "score"])

    def _lang(self, iso: str) -> int:
        if iso not in self.langs:
            raise SteerlabError(f"nothing was selected for {iso!r}; there are {' '.join(self.langs)}")
        return self.langs.index(iso)

    def _layer(self, layer: int) -> int:
        if layer not in self.layers:
            raise SteerlabError(f"no layer {layer} here; there are layers {', '.join(map(str, self.layers))}")
        return self.layers.index(layer)
