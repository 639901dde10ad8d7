"""A concept across languages: what of a contrast is shared by all, and what each has for itself."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.core.directions import Directions
from steerlab.core.display import Shown, View, counted, heat, layers, listed
from steerlab.core.equality import by_content
from steerlab.core.errors import SteerlabError
from steerlab.core.labels import AT, concept_of, language_of
from steerlab.core.languages import language
from steerlab.core.moments import Moments
from steerlab.estimate.build import need_moments
from steerlab.estimate.diffmean import READS


@dataclass(frozen=True, eq=False, repr=False)
class Crossed(Shown):
    """The means of concepts in languages as a sum: mean + concept + language + interaction.

    Each effect sums to zero over its own axes, and the four sum to the means. All cells count
    alike, however many tokens they have.

    Args:
        concepts: the concepts, in the order of the tensors.
        langs: the languages that the effects were estimated from.
        layers: the layers.
        site: where the activations were read.
        mean: of all cells.
        concept: the effect of each concept, alike in all languages.
        language: the effect of each language, alike for all concepts.
        interaction: what is left: a concept in one language, beside what all languages share.
        provenance: what the moments came from.
    """

    concepts: tuple[str, ...]
    langs: tuple[str, ...]
    layers: tuple[int, ...]
    site: str
    mean: Float[Tensor, "layer width"]
    concept: Float[Tensor, "concept layer width"]
    language: Float[Tensor, "lang layer width"]
    interaction: Float[Tensor, "concept lang layer width"]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    __eq__ = by_content

    def cells(self) -> Float[Tensor, "concept lang layer width"]:
        """The means that the four parts sum to."""
        return self.mean + self.concept[:, None] + self.language[None] + self.interaction

    def shares(self) -> pd.DataFrame:
        """Shares of the variance between cells, a row for each layer.

        `concept`, `language`, `interaction`: of the sum of squares of the cells about their mean.
        `shared`: concept / (concept + interaction), how much of the variance of the concept all
        languages have in common. A language's own sampling noise is part of the interaction, so
        that few texts make `shared` smaller; compare it with that of shuffled labels.
        """
        squares = {
            "concept": self.concept.square().sum((0, 2)) * len(self.langs),
            "language": self.language.square().sum((0, 2)) * len(self.concepts),
            "interaction": self.interaction.square().sum((0, 1, 3)),
        }
        total = sum(squares.values(), torch.zeros(len(self.layers), dtype=torch.float64))
        own = squares["concept"] + squares["interaction"]
        columns = {name: (value / total).tolist() for name, value in squares.items()}
        return pd.DataFrame(
            {"layer": self.layers, **columns, "shared": (squares["concept"] / own).tolist()}
        )

    def directions(self, *, langs: Iterable[str] | None = None) -> Directions:
        """The concept, alike in all languages: `between("informal", "formal")` steers any language,
        also one that was not read. Strength 1 is the gap between the concepts' means.

        With `langs` the labels are crossed (`informal@de`), as a sweep over a corpus of these
        languages asks for: each has its concept's vector and gap, and languages have none.
        """
        vectors = self.mean + self.concept
        if langs is None:
            return self._directions(self.concepts, vectors, "crossed")
        codes = [language(lang).iso for lang in langs]
        labels = [f"{concept}{AT}{lang}" for concept in self.concepts for lang in codes]
        return self._directions(labels, vectors.repeat_interleave(len(codes), 0), "crossed")

    def within(self, lang: str) -> Directions:
        """The concept in one language: the means of its cells."""
        code = language(lang).iso
        if code not in self.langs:
            raise SteerlabError(
                f"nothing was read of {lang!r}; the languages are {' '.join(self.langs)}: "
                "directions() of the others may steer it"
            )
        vectors = self.cells()[:, self.langs.index(code)]
        return self._directions(self.concepts, vectors, f"crossed within {code}")

    def _directions(self, labels: Sequence[str], vectors: Tensor, estimator: str) -> Directions:
        centred = vectors - vectors.mean(0, keepdim=True)
        length = centred.norm(dim=-1, keepdim=True).clamp(min=1e-30)
        settings = {"languages": list(self.langs)}
        return Directions(
            vectors=vectors.float(),
            basis=(centred / length)[:, :, None].float(),
            means=vectors.float(),
            langs=tuple(labels),
            layers=self.layers,
            site=self.site,
            provenance={**self.provenance, "estimator": estimator, "settings": settings},
        )

    def _view(self) -> View:
        shares = self.shares()
        names = ("concept", "language", "interaction", "shared")
        return View(
            "Crossed",
            f"{counted(len(self.concepts), 'concept')} ({listed(self.concepts)}) in "
            f"{counted(len(self.langs), 'language')} ({listed(self.langs)}), "
            f"{layers(self.layers)} of {self.site}",
            {"shared": " ".join(f"{share:.2f}" for share in shares["shared"])},
            picture=lambda: heat(shares[list(names)].T.to_numpy().tolist(), names, self.layers),
            caption="shares of the variance between cells, by layer",
        )


def crossed(
    moments: Moments, *, languages: Iterable[str] | None = None, read: str = "tokens"
) -> Crossed:
    """The two-way layout of concepts and languages, with one mean a cell.

    Formula: with the cell means m of concept c in language l, mean = m.., concept = mc. - m..,
    language = m.l - m.., interaction = mcl - mc. - m.l + m.., where a dot is the plain mean over
    that index: the analysis of variance of a balanced two-way layout (Fisher 1925).

    Raises `SteerlabError` for labels that are no concept in a language, for fewer than two
    concepts, for an empty cell, and for means that are not finite.

    Args:
        moments: of labels such as `informal@de`.
        languages: only these are read: zero-shot transfer estimates from some languages and
            steers another. By default all.
        read: `tokens`, `texts` or `last`: what the means are of, as for `diffmean`.
    """
    need_moments(moments)
    if read not in READS:
        raise SteerlabError(f"crossed reads 'tokens', 'texts' or 'last', not {read!r}")
    concepts, langs = axes(moments.langs)
    if languages is not None:
        langs = _chosen(languages, langs)
    missing = [
        f"{concept}{AT}{lang}"
        for concept in concepts
        for lang in langs
        if f"{concept}{AT}{lang}" not in moments.langs
    ]
    if missing:
        raise SteerlabError(
            f"the cell {missing[0]} is empty; a cross has texts of every concept in every "
            "language: give some, or name the languages= that have all concepts"
        )
    index = [[moments.langs.index(f"{c}{AT}{lang}") for lang in langs] for c in concepts]
    return _two_way(moments, torch.tensor(index), concepts, langs, READS[read])


def _two_way(
    moments: Moments, index: Tensor, concepts: tuple[str, ...], langs: tuple[str, ...], part: str
) -> Crossed:
    """The four parts of the cells whose labels stand at `index` [concept lang]."""
    empty = [moments.langs[i] for i in index.flatten().tolist() if moments.count[i] == 0]
    if empty:
        raise SteerlabError(f"the cell {empty[0]} is empty: nothing was read of it; give some text")
    cells = getattr(moments, part)[index].double()
    if not torch.isfinite(cells).all():
        raise SteerlabError("the means hold NaN or infinity; the model's weights are broken")
    mean = cells.mean((0, 1))
    concept = cells.mean(1) - mean
    lang = cells.mean(0) - mean
    return Crossed(
        concepts=concepts,
        langs=langs,
        layers=moments.layers,
        site=moments.site,
        mean=mean,
        concept=concept,
        language=lang,
        interaction=cells - mean - concept[:, None] - lang[None],
        provenance=moments.provenance,
    )


def axes(labels: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The concepts and the languages of crossed labels."""
    plain = [name for name in labels if AT not in name]
    if plain:
        raise SteerlabError(
            f"{plain[0]!r} is no concept in a language; a cross needs labels such as 'formal@de', "
            "which contrast makes of {'formal': {'de': [...]}, ...}"
        )
    concepts = tuple(dict.fromkeys(str(concept_of(name)) for name in labels))
    if len(concepts) < 2:
        raise SteerlabError(
            f"these moments have the concept {' '.join(concepts)} alone; a cross needs two or more"
        )
    return concepts, tuple(dict.fromkeys(str(language_of(name)) for name in labels))


def _chosen(languages: Iterable[str], there: tuple[str, ...]) -> tuple[str, ...]:
    names = languages.replace(",", " ").split() if isinstance(languages, str) else languages
    codes = tuple(dict.fromkeys(language(lang).iso for lang in names))
    unread = [code for code in codes if code not in there]
    if unread or not codes:
        raise SteerlabError(
            f"nothing was read of {unread[0] if unread else 'no language'}; give languages= of "
            f"{' '.join(there)}"
        )
    return codes
