"""Which units stand for which language, whatever the method that chose them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steerlab.core.display import Shown, View, counted, heat, layers, listed, ranges
from steerlab.core.equality import by_content
from steerlab.core.errors import SteerlabError
from steerlab.core.firing import Firing, Gradients
from steerlab.core.tensor_file import Content, load_tensors, save_tensors

FORMAT = "steerlab selection 1"
_ABOUT = ("method", "langs", "layers", "site", "provenance")
COLUMNS = ["method", "language", "layer", "unit", "score"]


@dataclass(frozen=True, eq=False, repr=False)
class Selection(Shown):
    """The units that stand for each language at each layer.

    Raises `SteerlabError` unless both tensors are languages x layers x units.

    Args:
        method: what chose them.
        langs: the languages, as ISO 639-1 codes.
        layers: the layers.
        site: where the units act: `resid_post` for an SAE's latents there, `mlp_post` for neurons.
        chosen: whether a unit stands for a language.
        score: by what it was chosen; higher is better.
        provenance: what was read, and with which settings.
    """

    method: str
    langs: tuple[str, ...]
    layers: tuple[int, ...]
    site: str
    chosen: Bool[Tensor, "lang layer unit"]
    score: Float[Tensor, "lang layer unit"]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    __eq__ = by_content

    def __post_init__(self) -> None:
        shape = (len(self.langs), len(self.layers), self.chosen.shape[-1])
        for name in ("chosen", "score"):
            given = tuple(getattr(self, name).shape)
            if given != shape:
                raise SteerlabError(
                    f"{name} has shape {given}; languages x layers x units is {shape}"
                )

    def _view(self) -> View:
        counts = self.chosen.sum(-1)
        return View(
            f"Selection by {self.method}",
            f"{int(counts.sum()):,} of {counted(self.units, 'unit')} a layer, "
            f"{layers(self.layers)} of {self.site}, "
            f"{counted(len(self.langs), 'language')} ({listed(self.langs)})",
            head=("language", "units", "at layers"),
            rows=[
                (lang, int(of_lang.sum()), ranges(self.where(lang)) or "none")
                for lang, of_lang in zip(self.langs, counts, strict=True)
            ],
            picture=lambda: heat(counts.tolist(), self.langs, self.layers),
            caption="how many units stand for each language, by layer",
        )

    @property
    def units(self) -> int:
        """How many units there are at each layer to choose from."""
        return self.chosen.shape[-1]

    @property
    def counts(self) -> pd.DataFrame:
        """How many units each language (down) has at each layer (across)."""
        return pd.DataFrame(
            self.chosen.sum(-1).numpy(), index=list(self.langs), columns=list(self.layers)
        )

    def of(self, lang: str, layer: int) -> list[int]:
        """A language's units at a layer, the highest score first."""
        i = self._lang_index(lang)
        j = self._layer_index(layer)
        units = self.chosen[i, j].nonzero()[:, 0]
        # Stable: of equal scores the lower unit comes first.
        order = self.score[i, j, units].argsort(descending=True, stable=True)
        return units[order].tolist()

    def where(self, lang: str) -> tuple[int, ...]:
        """The layers at which a language has any unit; at the others there is no direction."""
        has_units = self.chosen[self._lang_index(lang)].any(-1).tolist()
        return tuple(layer for layer, has in zip(self.layers, has_units, strict=True) if has)

    def at(self, *layers: int) -> "Selection":
        """The selection at these layers only."""
        if not layers:
            raise SteerlabError(
                f"name at least one of the layers {', '.join(map(str, self.layers))}"
            )
        indices = [self._layer_index(layer) for layer in layers]
        return replace(
            self, layers=tuple(layers), chosen=self.chosen[:, indices], score=self.score[:, indices]
        )

    def save(self, file: str | Path, *, force: bool = False) -> Path:
        """Write .safetensors whose header says what was read and with which settings; the file
        appears whole or not at all. With `force` it replaces one that steerlab did not write."""
        about = {name: getattr(self, name) for name in _ABOUT}
        tensors = {"chosen": self.chosen, "score": self.score}
        return save_tensors(file, FORMAT, tensors, about, force=force)

    @classmethod
    def load(cls, file: str | Path) -> "Selection":
        """Read what `save` wrote; raises `SteerlabError` for a missing, truncated, altered or
        foreign file."""
        return load_tensors(file, FORMAT, cls._from_file)

    @classmethod
    def _from_file(cls, content: Content) -> "Selection":
        langs, layers = content.words("langs"), content.numbers("layers")
        shape = (len(langs), len(layers), -1)
        return cls(
            content.word("method"),
            langs,
            layers,
            content.site(layers),
            content.take("chosen", *shape, dtype=torch.bool),
            # A unit that cannot be chosen has a score of minus infinity.
            content.take("score", *shape, dtype=content.tensors["score"].dtype, finite=False),
            content.object("provenance"),
        )

    def table(self) -> pd.DataFrame:
        """One row for each chosen unit: method, language, layer, unit, score."""
        rows = []
        for i, lang in enumerate(self.langs):
            for j, layer in enumerate(self.layers):
                for unit in self.of(lang, layer):
                    rows.append((self.method, lang, layer, unit, float(self.score[i, j, unit])))
        return pd.DataFrame(rows, columns=COLUMNS)

    def _lang_index(self, lang: str) -> int:
        if lang not in self.langs:
            raise SteerlabError(
                f"nothing was selected for {lang!r}; there are {' '.join(self.langs)}"
            )
        return self.langs.index(lang)

    def _layer_index(self, layer: int) -> int:
        if layer not in self.layers:
            raise SteerlabError(
                f"no layer {layer} here; there are layers {', '.join(map(str, self.layers))}"
            )
        return self.layers.index(layer)


def selected(
    method: str,
    read: Firing | Gradients,
    chosen: Bool[Tensor, "lang layer unit"],
    score: Float[Tensor, "lang layer unit"],
    settings: Mapping[str, Any],
) -> Selection:
    """Make a selection that says what was read and with which settings.

    Args:
        method: its name.
        read: what the units were chosen from.
        chosen: whether a unit stands for a language.
        score: by what it was chosen; higher is better.
        settings: the method's knobs, and what it counted.
    """
    provenance = {**read.provenance, "method": method, "settings": dict(settings)}
    return Selection(method, read.langs, read.layers, read.site, chosen, score, provenance)


def need_languages(read: Firing | Gradients, purpose: str) -> None:
    """Raise where there is one language only, or one of which nothing was read."""
    if len(read.langs) < 2:
        raise SteerlabError(
            f"{purpose} compares languages, and there is {' '.join(read.langs)} alone; read two or "
            "more"
        )
    if isinstance(read, Firing):
        read.need_texts()


def need_share(name: str, value: float) -> None:
    """Raise unless it lies in [0, 1]."""
    if not 0 <= value <= 1:
        raise SteerlabError(f"{name} is {value}; give a share from 0 to 1")


def how_many(share: float, units: int) -> int:
    """How many units a share of them is; raises where that is none."""
    need_share("the share of units", share)
    number = round(share * units)
    if not number:
        raise SteerlabError(
            f"a share of {share} of {units} units is none; give {1 / units:.2g} or more"
        )
    return number


def lowest(score: Float[Tensor, "layer unit"], number: int) -> Bool[Tensor, "layer unit"]:
    """The units with the lowest scores over all layers, of equal ones the first; never infinite
    ones, so that there may be fewer than `number`."""
    order = score.flatten().argsort(stable=True)[:number]
    marked = torch.zeros(score.numel(), dtype=torch.bool)
    marked[order] = True
    return marked.view(score.shape) & score.isfinite()
