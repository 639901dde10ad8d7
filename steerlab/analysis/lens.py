"""What the logit lens read: language masses of texts by layer and position, and their means with
intervals."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from steerlab.analysis.intervals import by_sentence, named
from steerlab.core.display import Shown, View, counted, heat, layers, listed
from steerlab.core.equality import by_content
from steerlab.core.errors import SteerlabError
from steerlab.core.languages import language


@dataclass(frozen=True)
class Read:
    """One text through the lens.

    Args:
        text: the text.
        lang: the language that it is in; None where that was not said.
        sentence: its number; translations of one sentence share it.
        pieces: its tokens as text, without BOS.
        mass: each language's share of the next token's probability after each token,
            `[layer pos lang]`.
        unsteered: the same without the edit; None where there was none.
        top: the likeliest next token as text, by layer and position.
    """

    text: str
    lang: str | None
    sentence: int
    pieces: tuple[str, ...]
    mass: Float[Tensor, "layer pos lang"]
    unsteered: Float[Tensor, "layer pos lang"] | None
    top: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, eq=False, repr=False)
class Lens(Shown):
    """Language masses of texts by layer and position, by the final norm and head.

    Args:
        langs: the languages whose tokens are counted.
        layers: the layers that were read.
        reads: the texts.
        model: what an artefact says of the model.
        words: how many tokens each language has.
    """

    langs: tuple[str, ...]
    layers: tuple[int, ...]
    reads: tuple[Read, ...]
    model: Mapping[str, Any] = field(default_factory=dict)
    words: Mapping[str, int] = field(default_factory=dict)

    __eq__ = by_content

    @property
    def edited(self) -> bool:
        """Whether an edit was on, so that there is an unsteered control."""
        return any(read.unsteered is not None for read in self.reads)

    @property
    def spoken(self) -> tuple[str | None, ...]:
        """The languages that the texts are in, each once."""
        return tuple(dict.fromkeys(read.lang for read in self.reads))

    def _view(self) -> View:
        edit = ", under an edit and without it" if self.edited else ""
        means = self.by_layer(self.spoken[0])
        grid = means.pivot(index="language", columns="layer", values="mass").loc[list(self.langs)]
        text = "" if self.spoken[0] is None else f" of text in {language(self.spoken[0]).name}"
        return View(
            "Lens",
            f"{counted(len(self.reads), 'text')}, {layers(self.layers)}, "
            f"{counted(len(self.langs), 'language')} ({listed(self.langs)}){edit}",
            {"model": self.model.get("name")},
            picture=lambda: heat(grid.to_numpy(float).tolist(), self.langs, self.layers),
            caption=f"mean mass of each language's tokens by layer{text}",
        )

    def table(self) -> pd.DataFrame:
        """One row for each text, layer, position and language: `text`, `spoken`, `sentence`,
        `layer`, `position`, `piece`, `language`, `mass`, and `unsteered` where an edit was on."""
        parts = []
        for number, read in enumerate(self.reads):
            index = pd.MultiIndex.from_product(
                [self.layers, range(len(read.pieces)), self.langs],
                names=["layer", "position", "language"],
            )
            part = pd.DataFrame({"mass": read.mass.flatten().numpy()}, index=index).reset_index()
            if read.unsteered is not None:
                part["unsteered"] = read.unsteered.flatten().numpy()
            part.insert(0, "text", number)
            part.insert(1, "spoken", read.lang)
            part.insert(2, "sentence", read.sentence)
            part.insert(5, "piece", [read.pieces[position] for position in part["position"]])
            parts.append(part)
        return pd.concat(parts, ignore_index=True)

    def by_layer(self, spoken: str | None = None) -> pd.DataFrame:
        """The mean mass of each language at each layer, over positions and then over texts, with
        95 % intervals by resampling sentences.

        Columns: `spoken`, `layer`, `language`, `mass`, `mass_low`, `mass_high`, `n`; where an edit
        was on also `unsteered` and `gain`, the mass less the unsteered one of the same text, with
        their intervals.

        Args:
            spoken: only of texts in this language; by default of each language by itself.
        """
        if spoken is not None and spoken not in self.spoken:
            there = " ".join(str(lang) for lang in self.spoken)
            raise SteerlabError(f"no text was in {spoken!r}; the texts are in {there}")
        rows = []
        for lang in self.spoken if spoken is None else (spoken,):
            reads = [read for read in self.reads if read.lang == lang]
            sentences = pd.Series([read.sentence for read in reads]).to_numpy()
            values = {"mass": [read.mass.mean(1) for read in reads]}
            if self.edited:
                before = [read.unsteered.mean(1) for read in reads if read.unsteered is not None]
                values["unsteered"] = before
                values["gain"] = [
                    after - other for after, other in zip(values["mass"], before, strict=True)
                ]
            for i, layer in enumerate(self.layers):
                for j, name in enumerate(self.langs):
                    row: dict[str, Any] = {"spoken": lang, "layer": layer, "language": name}
                    for column, of_texts in values.items():
                        each = pd.Series([float(value[i, j]) for value in of_texts]).to_numpy()
                        row |= named(column, by_sentence(each, sentences, share=False))
                    rows.append(row | {"n": len(reads)})
        return pd.DataFrame(rows)
