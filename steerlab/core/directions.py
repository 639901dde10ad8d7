"""The waist: where each language lies at each layer of one site, and the direction from one
language to another."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, final, get_args

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from steerlab.core.equality import by_content
from steerlab.core.errors import SteerlabError
from steerlab.core.files import explained, need_ending, replacing
from steerlab.core.languages import language

FORMAT = "steerlab directions 1"
StrengthUnit = Literal["gap", "absolute"]


@dataclass(frozen=True, eq=False)
class Direction:
    """From one language (or, if `source` is None, from the other languages' mean) to another, at
    some layers.

    `unit` [layer width] points at the target; `gap` [layer] is how far strength 1 goes: the
    distance between the two means, or 1 where `Directions.strength_unit` is "absolute"; `start`
    [layer width] is the mean that it sets out from, `end` the target's; `basis` [layer rank width]
    is the target's subspace; `extra` what only some operators ask for [layer ...], of the target,
    and `source_extra` the same of the source, if there is one.
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
        """Only these layers."""
        keep = _places(self.layers, layers)
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


@final
@dataclass(frozen=True, eq=False)
class Directions:
    """Language vectors whose differences are directions, with the language means that give strength
    its unit.

    `vectors` [lang layer width]: what the estimator says of each language; `between(a, b)` is the
    unit vector of their difference, so `between(a, b)` and `between(b, a)` are opposite. `basis`
    [lang layer rank width]: orthonormal rows, zero rows where a layer uses a smaller rank. `means`
    [lang layer width]. `source` is set when the fit is for one source language only: then no other
    source may be asked for. `extra` holds what an estimator's own operator needs beside these, by
    name [lang layer ...], or [1 layer ...] where all languages share it. `strength_unit` says how
    far strength 1 goes: "gap", the distance between the two means, or "absolute", 1 in the residual
    stream.
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
        if self.strength_unit not in get_args(StrengthUnit):
            units = " or ".join(map(repr, get_args(StrengthUnit)))
            raise SteerlabError(f"the unit of strength is {self.strength_unit!r}; give {units}")
        shape = (len(self.langs), len(self.layers), self.means.shape[-1])
        for name in ("vectors", "means"):
            value = getattr(self, name)
            if tuple(value.shape) != shape:
                raise SteerlabError(
                    f"{name} has shape {tuple(value.shape)}; languages x layers x width is {shape}"
                )
            if not torch.isfinite(value).all():
                raise SteerlabError(
                    f"{name} holds NaN or infinity; the model's activations or the fit are broken"
                )
        if self.basis.ndim != 4 or (*self.basis.shape[:2], self.basis.shape[3]) != shape:
            raise SteerlabError(
                f"basis has shape {tuple(self.basis.shape)}, not languages x layers x rank x width"
            )
        for name, value in self.extra.items():
            if (
                tuple(value.shape[:2]) not in ((1, shape[1]), shape[:2])
                or not torch.isfinite(value).all()
            ):
                told = (
                    f"has shape {tuple(value.shape)}, not (languages or 1) x layers x ..., or is "
                    "not finite"
                )
                raise SteerlabError(f"extra {name!r} {told}; fit again")

    @property
    def estimator(self) -> str:
        return str(self.provenance.get("estimator", "unknown"))

    @property
    def width(self) -> int:
        return self.means.shape[-1]

    def at(self, *layers: int) -> "Directions":
        """Only these layers."""
        keep = _places(self.layers, layers)
        cut = {name: getattr(self, name)[:, keep] for name in ("vectors", "basis", "means")}
        return replace(
            self, layers=layers, extra={name: v[:, keep] for name, v in self.extra.items()}, **cut
        )

    def between(self, source: str, target: str) -> Direction:
        """The direction from `source` to `target`: the unit vector of the difference of their
        vectors."""
        a, b = self._place(source), self._place(target)
        if a == b:
            raise SteerlabError(
                f"source and target are both {source!r}; a direction needs two languages"
            )
        if self.source is not None and source != self.source:
            raise SteerlabError(
                f"these directions were fitted from {self.source!r} only; {source!r} was asked for "
                "as the source: "
                f"fit again from {source!r}"
            )
        step = self.means[b] - self.means[a]
        return self._direction(
            source, target, self.vectors[b] - self.vectors[a], step, self.means[a]
        )

    def __getitem__(self, target: str) -> Direction:
        """The direction from the mean of the other languages to `target`."""
        b = self._place(target)
        others = [i for i in range(len(self.langs)) if i != b]
        start = self.means[others].mean(0)
        vector = self.vectors[b] - self.vectors[others].mean(0)
        return self._direction(None, target, vector, self.means[b] - start, start)

    def where(self, target: str, source: str | None = None) -> tuple[int, ...]:
        """The layers at which there is a direction to a target: a method may find nothing of it
        elsewhere."""
        b = self._place(target)
        others = (
            [i for i in range(len(self.langs)) if i != b]
            if source is None
            else [self._place(source)]
        )
        apart = (self.vectors[b] - self.vectors[others].mean(0)).any(-1)
        return tuple(
            layer for layer, there in zip(self.layers, apart.tolist(), strict=True) if there
        )

    def centred(self) -> Float[Tensor, "lang layer width"]:
        """The language vectors less their mean over languages: what similarity of languages is
        read from."""
        return self.vectors - self.vectors.mean(0, keepdim=True)

    def subspace(self, layer: int) -> Float[Tensor, "rank width"]:
        """Orthonormal rows that span the centred language vectors at a layer."""
        centred = self.at(layer).centred()[:, 0]
        _, values, rows = torch.linalg.svd(centred, full_matrices=False)
        return rows[values > values[0] * 1e-5]

    def _place(self, iso: str) -> int:
        if iso not in self.langs:
            language(iso)
            raise SteerlabError(f"no direction for {iso!r}; there are {' '.join(self.langs)}")
        return self.langs.index(iso)

    def _direction(
        self, source: str | None, target: str, vector: Tensor, step: Tensor, start: Tensor
    ) -> Direction:
        size = vector.norm(dim=-1, keepdim=True)
        if not (size > 0).all():
            empty = [
                layer
                for layer, zero in zip(self.layers, (size[:, 0] == 0).tolist(), strict=True)
                if zero
            ]
            raise SteerlabError(
                f"the direction to {target!r} is zero at layers {empty}; choose other layers or "
                "texts"
            )
        place = self._place(target)

        def of(lang: int) -> dict[str, Tensor]:
            return {
                name: value[lang if len(value) > 1 else 0] for name, value in self.extra.items()
            }

        return Direction(
            target=target,
            source=source,
            layers=self.layers,
            site=self.site,
            unit=vector / size,
            gap=step.norm(dim=-1) if self.strength_unit == "gap" else torch.ones_like(step[..., 0]),
            start=start,
            basis=self.basis[place],
            model=self.provenance.get("model", {}),
            end=self.means[place],
            extra=of(place),
            source_extra={} if source is None else of(self._place(source)),
        )

    @property
    def digest(self) -> str:
        """SHA-256 of all that edits made of it can read: tensors, languages, layers, site,
        source, unit of strength."""
        told = [self.langs, self.layers, self.site, self.source]
        if (
            self.strength_unit != "gap"
        ):  # so that a digest of before this field is still that of the same directions
            told.append(self.strength_unit)
        return _digest(self._tensors(), {"about": json.dumps(told)})

    def _tensors(self) -> dict[str, Tensor]:
        extra = {f"extra.{name}": value for name, value in self.extra.items()}
        return {name: getattr(self, name) for name in ("vectors", "basis", "means")} | extra

    def save(self, file: str | Path) -> Path:
        """Write .safetensors whose header says what made it; the file appears whole or not at
        all."""
        file = need_ending(file, ".safetensors")
        # Copies, since safetensors refuses tensors that share memory.
        kept = {name: value.detach().cpu() for name, value in self._tensors().items()}
        tensors = {
            name: value.clone(memory_format=torch.contiguous_format) for name, value in kept.items()
        }
        about = {
            name: getattr(self, name)
            for name in ("langs", "layers", "site", "source", "strength_unit")
        }
        header = {
            "format": FORMAT,
            "about": json.dumps(about),
            "provenance": json.dumps(dict(self.provenance)),
        }
        header["sha256"] = _digest(tensors, header)
        with explained(file), replacing(file) as (fresh,):
            save_file(tensors, fresh, metadata=header)
        return file

    @classmethod
    def load(cls, file: str | Path) -> "Directions":
        """Read what `save` wrote; a truncated, altered or foreign file raises."""
        try:
            with safe_open(file, framework="pt") as opened:
                header = opened.metadata() or {}
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}
        except FileNotFoundError as error:
            raise SteerlabError(f"there is no file {file}") from error
        except (SafetensorError, OSError) as error:
            raise SteerlabError(
                f"{file} is truncated or no safetensors file ({error}); make it again"
            ) from error
        if header.get("format") != FORMAT:
            raise SteerlabError(
                f"{file} was not written by Directions.save (its format is "
                f"{header.get('format')!r})"
            )
        if _digest(tensors, header) != header.get("sha256"):
            raise SteerlabError(
                f"{file} was altered after it was written: its checksum does not match; make it "
                "again"
            )
        about = json.loads(header["about"])
        extra = {
            name.removeprefix("extra."): tensors.pop(name)
            for name in list(tensors)
            if name.startswith("extra.")
        }
        return cls(
            **tensors,
            extra=extra,
            langs=tuple(about["langs"]),
            layers=tuple(about["layers"]),
            site=about["site"],
            source=about["source"],
            strength_unit=about.get(
                "strength_unit", "gap"
            ),  # files of before this field are in gaps
            provenance=json.loads(header["provenance"]),
        )


def _places(have: tuple[int, ...], wanted: tuple[int, ...]) -> list[int]:
    if missing := [layer for layer in wanted if layer not in have]:
        raise SteerlabError(
            f"no layer {missing[0]} here; there are layers {', '.join(map(str, have))}"
        )
    if not wanted:
        raise SteerlabError(f"name at least one of the layers {', '.join(map(str, have))}")
    return [have.index(layer) for layer in wanted]


def _digest(tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> str:
    """SHA-256 of everything in the file but the checksum itself."""
    told = [f"{name}: {text}" for name, text in sorted(header.items()) if name != "sha256"]
    shapes = [
        f"{name} {tensors[name].dtype} {list(tensors[name].shape)}" for name in sorted(tensors)
    ]
    digest = hashlib.sha256("\n".join(told + shapes).encode())
    for name in sorted(tensors):
        digest.update(tensors[name].cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
