"""Directions: where each language lies at each layer of one site, and how one language is reached
from another.

This is the noun that connects the two halves of the package: every estimator makes it, every edit
takes it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.core.directions_file import load_directions, save_directions
from steerlab.core.display import Shown, View, bars, counted, heat, layers, listed
from steerlab.core.equality import by_content
from steerlab.core.errors import SteerlabError
from steerlab.core.labels import label
from steerlab.core.strength_unit import StrengthUnit, need_unit, warn_of_every_layer
from steerlab.core.tensor_file import digest_of


@dataclass(frozen=True, eq=False, repr=False)
class Direction(Shown):
    """The direction from one language to another, at some layers of one site.

    Args:
        target: the language that it points at.
        source: the language that it sets out from; None for the mean of all other languages.
        layers: the layers that it has a vector for, in this order.
        site: the site of the model that it belongs to.
        unit: vectors of length 1 that point at the target.
        gap: how far strength 1 goes: the distance between the two means, or 1 where
            `Directions.strength_unit` is "absolute".
        start: the mean that it sets out from.
        basis: orthonormal rows that span the target's subspace.
        model: name and fingerprint of the model, so that an edit of another one can be refused.
        end: the target's mean.
        extra: what only some operators ask for, of the target, by name, [layer ...].
        source_extra: the same of the source, if there is one.
    """

    target: str
    source: str | None
    layers: tuple[int, ...]
    site: str
    unit: Float[Tensor, "layer width"]
    gap: Float[Tensor, " layer"]
    start: Float[Tensor, "layer width"]
    basis: Float[Tensor, "layer rank width"]
    model: Mapping[str, Any] = field(default_factory=dict)
    end: Float[Tensor, "layer width"] | None = None
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    source_extra: Mapping[str, Tensor] = field(default_factory=dict)

    __eq__ = by_content

    def at(self, *layers: int) -> "Direction":
        """Only these layers, in this order; raises `SteerlabError` for one that is not there."""
        keep = _layer_indices(self.layers, layers)
        return replace(
            self,
            layers=layers,
            unit=self.unit[keep],
            gap=self.gap[keep],
            start=self.start[keep],
            basis=self.basis[keep],
            end=None if self.end is None else self.end[keep],
            extra={name: value[keep] for name, value in self.extra.items()},
            source_extra={name: value[keep] for name, value in self.source_extra.items()},
        )

    def export(
        self,
        file: str | Path,
        *,
        strength: float = 1.0,
        format: str | None = None,
        force: bool = False,
    ) -> Path:
        """Write what `add` of it adds, as a file of another tool.

        A file with room for it says what made it; beside another kind lies `<file>.json`, which
        does. Raises `SteerlabError` for what a format cannot say, before anything is written.

        Args:
            file: its ending decides the format: .gguf, .svec, .npz, .pt or .json (Neuronpedia).
            strength: in natural gaps; it is multiplied in.
            format: "steering-vectors" or "lm-eval", for a .pt of that tool.
            force: replace a file that steerlab did not write.
        """
        from steerlab.core.exchange import export  # which itself needs this module

        example = "direction.at({layer}).export(...)"
        warn_of_every_layer(self, "what reads the file", example=example)
        return export(self, file, strength=strength, format=format, force=force)

    def _view(self) -> View:
        gaps = self.gap.tolist()
        told = (
            f"gap {gaps[0]:.3g}" if len(gaps) == 1 else f"gaps {min(gaps):.3g} to {max(gaps):.3g}"
        )
        return View(
            f"Direction {self.source or 'the other languages'} → {self.target}",
            f"{layers(self.layers)} of {self.site}, {told}",
            {"width": self.unit.shape[1], "rank": self.basis.shape[1]} | _made_with(self.model),
            picture=lambda: bars({str(n): gap for n, gap in zip(self.layers, gaps, strict=True)}),
            caption="the gap that strength 1 goes, by layer",
        )


# What operators read of a `Direction`, and may ask of `Directions` that were given in its place.
_OF_A_DIRECTION = ("target", "unit", "gap", "start", "end", "model", "source_extra", "export")


@final
@dataclass(frozen=True, eq=False, repr=False)
class Directions(Shown):
    """A vector for each language and layer, whose differences are the directions between languages.

    `between(a, b)` is the unit vector of the difference of two languages, so `between(a, b)` and
    `between(b, a)` are opposite. Raises `SteerlabError` for shapes that do not fit together, NaN or
    infinity.

    Args:
        vectors: what the estimator found for each language.
        basis: orthonormal rows that span each language's subspace; rows of zeros where a layer
            uses a smaller rank.
        means: the mean activations of each language, which give strength its unit.
        langs: the languages, in the order of the tensors.
        layers: the layers, in the order of the tensors.
        site: the site of the model at which the activations were read.
        source: set if the fit is for one source language only; then no other source may be asked
            for.
        provenance: what made them: model, corpus, estimator and its settings.
        extra: what an estimator's own operator needs beside these, by name, [lang layer ...], or
            [1 layer ...] where all languages share it.
        strength_unit: how far strength 1 goes: "gap", the distance between the two means, or
            "absolute", 1 in the residual stream.
    """

    vectors: Float[Tensor, "lang layer width"]
    basis: Float[Tensor, "lang layer rank width"]
    means: Float[Tensor, "lang layer width"]
    langs: tuple[str, ...]
    layers: tuple[int, ...]
    site: str
    source: str | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    strength_unit: StrengthUnit = "gap"

    __eq__ = by_content

    def __post_init__(self) -> None:
        need_unit(self.strength_unit)
        _need_once("language", self.langs)
        _need_once("layer", self.layers)
        shape = (len(self.langs), len(self.layers), self.means.shape[-1])
        for name in ("vectors", "means"):
            value = getattr(self, name)
            if tuple(value.shape) != shape:
                raise SteerlabError(
                    f"{name} has shape {tuple(value.shape)}; languages x layers x width is {shape}"
                )
            # One NaN would spread over every output of a steered model.
            if not torch.isfinite(value).all():
                raise SteerlabError(
                    f"{name} holds NaN or infinity; the model's activations or the fit are broken"
                )
        if self.basis.ndim != 4 or (*self.basis.shape[:2], self.basis.shape[3]) != shape:
            raise SteerlabError(
                f"basis has shape {tuple(self.basis.shape)}, not languages x layers x rank x width"
            )
        for name, value in self.extra.items():
            fits = tuple(value.shape[:2]) in ((1, shape[1]), shape[:2])
            if not fits or not torch.isfinite(value).all():
                raise SteerlabError(
                    f"extra {name!r} has shape {tuple(value.shape)}, not (languages or 1) x layers "
                    "x ..., or is not finite; fit again"
                )

    def __getattr__(self, name: str) -> Any:
        if name in _OF_A_DIRECTION:
            raise _NoDirection(
                "one direction is needed, not Directions; give directions.between('en', 'es') or "
                "directions['es']"
            )
        raise AttributeError(f"'Directions' object has no attribute {name!r}")

    @property
    def estimator(self) -> str:
        """The name of the estimator that made them, or "unknown"."""
        return str(self.provenance.get("estimator", "unknown"))

    @property
    def width(self) -> int:
        """The width of the activations."""
        return self.means.shape[-1]

    def _view(self) -> View:
        middle = self.layers[len(self.layers) // 2]
        source = f", from {self.source} only" if self.source else ""
        return View(
            f"Directions by {self.estimator}",
            f"{counted(len(self.langs), 'language')} ({listed(self.langs)}), "
            f"{layers(self.layers)} of {self.site}, width {self.width}{source}",
            {"rank": self.basis.shape[2], "strength 1 is": f"one {self.strength_unit}"}
            | _made_with(self.provenance.get("model", {}))
            | {"corpus": self.provenance.get("corpus", {}).get("name")},
            picture=lambda: self._cosines(middle),
            caption=f"cosine of the languages' vectors less their mean, at layer {middle}",
        )

    def _cosines(self, layer: int) -> str:
        unit = torch.nn.functional.normalize(self.at(layer).centred()[:, 0].double().cpu(), dim=-1)
        return heat((unit @ unit.T).tolist(), self.langs, self.langs)

    def at(self, *layers: int) -> "Directions":
        """Only these layers, in this order; raises `SteerlabError` for one that is not there."""
        keep = _layer_indices(self.layers, layers)
        cut = replace(
            self,
            layers=layers,
            vectors=self.vectors[:, keep],
            basis=self.basis[:, keep],
            means=self.means[:, keep],
            extra={name: value[:, keep] for name, value in self.extra.items()},
        )
        object.__setattr__(cut, "layers_chosen", True)
        return cut

    def between(self, source: str, target: str) -> Direction:
        """The direction from `source` to `target`: the unit vector of the difference of their
        vectors.

        Raises `SteerlabError` for a language that is not there, for one language twice, for
        another source than the one fitted for, and where the difference is zero.
        """
        a = self._lang_index(source)
        b = self._lang_index(target)
        if a == b:
            raise SteerlabError(
                f"source and target are both {source!r}; a direction needs two languages"
            )
        # An estimator that reads pairs from one language says nothing about other sources.
        if self.source is not None and source != self.source:
            raise SteerlabError(
                f"these directions were fitted from {self.source!r} only; {source!r} was asked for "
                f"as the source: fit again from {source!r}"
            )
        vector = self.vectors[b] - self.vectors[a]
        step = self.means[b] - self.means[a]
        return self._direction(source, target, vector, step, self.means[a])

    def __getitem__(self, target: str) -> Direction:
        """The direction from the mean of the other languages to `target`."""
        b = self._lang_index(target)
        others = self._others(b)
        start = self.means[others].mean(0)
        vector = self.vectors[b] - self.vectors[others].mean(0)
        return self._direction(None, target, vector, self.means[b] - start, start)

    def where(self, target: str, source: str | None = None) -> tuple[int, ...]:
        """The layers at which there is a direction to a target.

        An estimator that finds nothing of a language at a layer leaves its vector the source's.
        Without a source, the direction is that from the mean of the other languages.
        """
        b = self._lang_index(target)
        others = self._others(b) if source is None else [self._lang_index(source)]
        differs = (self.vectors[b] - self.vectors[others].mean(0)).any(-1).tolist()
        return tuple(layer for layer, there in zip(self.layers, differs, strict=True) if there)

    def centred(self) -> Float[Tensor, "lang layer width"]:
        """The language vectors less their mean over languages: what the similarity of languages is
        computed from."""
        return self.vectors - self.vectors.mean(0, keepdim=True)

    def subspace(self, layer: int) -> Float[Tensor, "rank width"]:
        """Orthonormal rows that span the centred language vectors at a layer."""
        centred = self.at(layer).centred()[:, 0]
        _, values, rows = torch.linalg.svd(centred, full_matrices=False)
        # Centring takes one dimension away, so at least one singular value is mere rounding.
        return rows[values > values[0] * 1e-5]

    def _lang_index(self, lang: str) -> int:
        if lang not in self.langs:
            given = lang
            try:
                lang = label(lang)  # raises first where there is no such language
            except SteerlabError as error:
                there = " ".join(self.langs)
                raise SteerlabError(f"{error}; these directions have {there}") from error
            if lang not in self.langs:
                raise SteerlabError(f"no direction for {given!r}; there are {' '.join(self.langs)}")
        return self.langs.index(lang)

    def _others(self, index: int) -> list[int]:
        """The indices of all languages but one."""
        return [other for other in range(len(self.langs)) if other != index]

    def _extra_of(self, lang: str | None) -> dict[str, Tensor]:
        """A language's own part of `extra`, or the one part that all languages share."""
        if lang is None:
            return {}
        index = self._lang_index(lang)
        return {name: value[index if len(value) > 1 else 0] for name, value in self.extra.items()}

    def _direction(
        self, source: str | None, target: str, vector: Tensor, step: Tensor, start: Tensor
    ) -> Direction:
        """The `Direction` of one pair of languages.

        Args:
            source: where it sets out from; None for the mean of the others.
            target: where it goes.
            vector: the difference of the language vectors, [layer width].
            step: the difference of the means, [layer width], whose length is the gap.
            start: the mean that it sets out from, [layer width].
        """
        size = vector.norm(dim=-1, keepdim=True)
        zero = (size[:, 0] == 0).tolist()
        # A zero vector has no direction: dividing by its length would steer by NaN.
        if not (size > 0).all():
            empty = [layer for layer, is_zero in zip(self.layers, zero, strict=True) if is_zero]
            raise SteerlabError(
                f"the direction to {target!r} is zero at layers {empty}; choose other layers or "
                "texts"
            )
        gap = step.norm(dim=-1)
        target_index = self._lang_index(target)
        direction = Direction(
            target=target,
            source=source,
            layers=self.layers,
            site=self.site,
            unit=vector / size,
            gap=gap if self.strength_unit == "gap" else torch.ones_like(gap),
            start=start,
            basis=self.basis[target_index],
            model=self.provenance.get("model", {}),
            end=self.means[target_index],
            extra=self._extra_of(target),
            source_extra=self._extra_of(source),
        )
        # No field: whether somebody chose the layers is no part of what a direction is.
        object.__setattr__(direction, "layers_chosen", getattr(self, "layers_chosen", False))
        return direction

    @property
    def digest(self) -> str:
        """SHA-256 of all that an edit can read of it: tensors, languages, layers, site, source,
        unit of strength."""
        fields = [self.langs, self.layers, self.site, self.source]
        # Only where it is not the default, so that directions of before this field existed keep
        # their digest.
        if self.strength_unit != "gap":
            fields.append(self.strength_unit)
        return digest_of(self._tensors(), {"about": json.dumps(fields)})

    def _tensors(self) -> dict[str, Tensor]:
        """The tensors under the names that they have in a file."""
        # The prefix keeps a part of `extra` from taking the name of one of the other three.
        extra = {f"extra.{name}": value for name, value in self.extra.items()}
        return {name: getattr(self, name) for name in ("vectors", "basis", "means")} | extra

    def save(self, file: str | Path, *, force: bool = False) -> Path:
        """Write .safetensors whose header says what made it; the file appears whole or not at
        all.

        A file that steerlab did not write is replaced with `force` only.
        """
        return save_directions(self, file, force=force)

    @classmethod
    def load(cls, file: str | Path) -> "Directions":
        """Read what `save` wrote.

        Raises `SteerlabError` for a missing, truncated, altered or foreign file.
        """
        return load_directions(cls, file)

    def push_to_hub(
        self,
        repo: str,
        *,
        license: str | None = None,
        private: bool = False,
        token: str | None = None,
        endpoint: str | None = None,
    ) -> str:
        """Put them on the Hub with a card that says what made them, and two pictures; gives the
        repository's address.

        The file's header goes along as it is, names of folders included. Raises `SteerlabError` for
        what is no owner/name, and where the Hub refuses.

        Args:
            repo: owner/name; it is made where it is not there.
            license: of the file, as the Hub names licences; by default the card names none.
            private: whether a new repository is.
            token: of the Hub; by default the one that is logged in.
            endpoint: another address than the Hub's.
        """
        from steerlab.core.exchange.hub import push_to_hub  # which itself needs this module

        return push_to_hub(
            self, repo, license=license, private=private, token=token, endpoint=endpoint
        )

    @classmethod
    def from_hub(
        cls,
        repo: str | Path,
        *,
        revision: str | None = None,
        token: str | None = None,
        endpoint: str | None = None,
    ) -> "Directions":
        """Those of a repository of the Hub, or of a folder with the same files.

        Nothing but the one .safetensors file is fetched, and nothing is run. Raises as `load` does,
        and where the repository cannot be reached.

        Args:
            repo: owner/name, or a folder.
            revision: a branch, tag or commit.
            token: of the Hub; by default the one that is logged in.
            endpoint: another address than the Hub's.
        """
        from steerlab.core.exchange.hub import from_hub  # which itself needs this module

        return from_hub(repo, revision=revision, token=token, endpoint=endpoint)


def _made_with(model: Mapping[str, Any]) -> dict[str, Any]:
    """What a view says of the model that something was made with."""
    return {"model": model["name"]} if model.get("name") else {}


def _need_once(what: str, names: tuple[Any, ...]) -> None:
    """Raise where one of some names stands twice: what it means would be done twice."""
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise SteerlabError(f"{what} {twice[0]!r} stands twice; name each once")


class _NoDirection(SteerlabError, AttributeError):
    """What one direction has was asked of all of them: an `AttributeError`, so that `hasattr` says
    no."""


def _layer_indices(have: tuple[int, ...], wanted: tuple[int, ...]) -> list[int]:
    """Where the wanted layers stand among those that there are."""
    there = ", ".join(map(str, have))
    missing = [layer for layer in wanted if layer not in have]
    if missing:
        raise SteerlabError(f"no layer {missing[0]} here; there are layers {there}")
    if not wanted:
        raise SteerlabError(f"name at least one of the layers {there}")
    _need_once("layer", wanted)
    return [have.index(layer) for layer in wanted]
