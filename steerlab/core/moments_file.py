"""Moments on disk."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.core.samples import Reservoir
from steerlab.core.tensor_file import Content, load_tensors, save_tensors

if TYPE_CHECKING:
    from steerlab.core.moments import Moments

FORMAT = "steerlab moments 1"
_COUNTS = ("count", "rows")  # [lang]
_MEANS = ("mean", "pooled", "last")  # [lang layer width]


def save_moments(moments: "Moments", file: str | Path, *, force: bool) -> Path:
    """Write them; see `Moments.save`."""
    tensors: dict[str, Tensor] = {name: getattr(moments, name) for name in _COUNTS + _MEANS}
    about: dict[str, Any] = {
        name: getattr(moments, name) for name in ("langs", "layers", "width", "site", "provenance")
    }
    for name in ("within", "clouds"):
        if getattr(moments, name) is not None:
            tensors[name] = getattr(moments, name)
    if moments.sample is not None:
        tensors |= _named("sample", moments.sample.state())
    if moments.pairs is not None:
        about["pairs_from"] = moments.pairs.source
        tensors |= {f"pairs.{name}": getattr(moments.pairs, name) for name in _PAIRS}
        tensors |= _named("pairs.sample", moments.pairs.sample.state())
    return save_tensors(file, FORMAT, tensors, about, force=force)


_PAIRS = ("count", "total", "square")


def load_moments(cls: type["Moments"], file: str | Path) -> "Moments":
    """Read them; see `Moments.load`."""

    def make(content: Content) -> "Moments":
        has = content.tensors
        layers = content.numbers("layers")
        pairs_from = content.word("pairs_from") if "pairs_from" in content.about else None
        kept = {name: has[name].shape[1] for name in has if name.endswith("sample.vectors")}
        moments = cls(
            content.words("langs"),
            layers,
            content.number("width", least=1),
            site=content.site(layers),
            scatter="within" in has,
            clouds="clouds" in has,
            sample=kept.get("sample.vectors", 0),
            pairs_from=pairs_from,
            provenance=content.object("provenance"),
        )
        for name in (*_COUNTS, *_MEANS, "within", "clouds"):
            made = getattr(moments, name)
            if made is not None:
                setattr(moments, name, content.take(name, *made.shape, dtype=made.dtype))
        for name in _COUNTS:
            if (getattr(moments, name) < 0).any():
                raise SteerlabError(f"{name} is negative")
        if moments.sample is not None:
            _take_sample(content, "sample", moments.sample)
        if moments.pairs is not None:
            for name in _PAIRS:
                made = getattr(moments.pairs, name)
                setattr(
                    moments.pairs,
                    name,
                    content.take(f"pairs.{name}", *made.shape, dtype=made.dtype),
                )
            moments.pairs.sample.size = kept.get("pairs.sample.vectors", 0)
            _take_sample(content, "pairs.sample", moments.pairs.sample)
        return moments

    return load_tensors(file, FORMAT, make)


def _take_sample(content: Content, name: str, sample: Reservoir) -> None:
    langs, _, layers, width = sample.vectors.shape
    seen = content.take(f"{name}.seen", langs, dtype=torch.int64)
    if (seen < 0).any():
        raise SteerlabError(f"{name}.seen is negative")
    sample.restore(
        content.take(f"{name}.vectors", langs, sample.size, layers, width, dtype=torch.float32),
        seen,
        content.take(f"{name}.random", -1, dtype=torch.uint8),
    )


def _named(start: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{start}.{name}": value for name, value in state.items()}
