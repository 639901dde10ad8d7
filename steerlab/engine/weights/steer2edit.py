"""Steer2Edit: a steering vector as rank-1 changes of the heads and neurons that write along it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.fingerprints import same_weights
from steerlab.core.moments import Moments
from steerlab.edits.writing import elastic_net
from steerlab.engine.weights.change import Change
from steerlab.engine.weights.weight_edit import WeightEdit
from steerlab.estimate.build import build
from steerlab.models.huggingface import HuggingFaceModel
from steerlab.models.loading import load
from steerlab.models.writers import need_weights, oriented, writer

HEADS, NEURONS = "attn_z", "mlp_post"
_LEAST = 1e-30


def steer2edit(
    model: Any,
    *readings: Moments,
    source: str,
    target: str,
    rho_heads: float | None = 4.0,
    rho_neurons: float | None = 8.0,
    alpha: float = 0.5,
    random: int | None = None,
) -> WeightEdit:
    """Rank-1 changes of the heads and neurons whose mean contribution lies along the step from one
    language to another, in the weights: ΔWᵢ = λᵢ v̂ k̂ᵢᵀ.

    At each layer, for attention and MLP by themselves: v = W (μ_t - μ_s), the step of what the
    output projection gives, from the means of what it reads; gᵢ = cos(v, Wᵢ μᵢ), with Wᵢ a head's
    columns or a neuron's one, and μᵢ the mean over both languages; k̂ᵢ = Wᵢᵀ v̂ / ‖Wᵢᵀ v̂‖; and λ the
    solution of max gᵀλ - ρ (α ‖λ‖₁ + (1 - α)/2 ‖λ‖²), `elastic_net`. What a component gives for its
    mean input is moved along v̂ only, and towards the target.

    ρ is in units of 1/√d, the cosine that a random vector has with v̂, so that one number means the
    same in models of all widths: the paper's .18 and .55 of Llama-2 7B are 11.5 and 35. λ is in the
    units of the weights. Means are of texts' own means. `metadata` has each head's λ and how many
    neurons changed. Source: Steer2Edit (arXiv 2602.09870).

    Args:
        model: what `load` takes.
        readings: `collect(model, corpus, site="attn_z")`, `collect(..., site="mlp_post")`, or one
            of the two; other components are left as they are.
        source: the language, or label, that is steered from.
        target: the one that is steered to.
        rho_heads: the penalty of heads, in 1/√d; None leaves them as they are.
        rho_neurons: that of neurons.
        alpha: the share of the penalty that is ℓ₁, from 0 to below 1: larger, fewer components.
        random: a seed for the control: the same λ and k̂, written along a random direction.
    """
    held = need_weights(load(model), "steer2edit")
    rho = {HEADS: rho_heads, NEURONS: rho_neurons}
    for value in rho.values():
        if value is not None:
            elastic_net(torch.zeros(1), value, alpha)  # raises for what is no penalty
    chosen = [each for each in _read(held, readings, source, target) if rho[each.site] is not None]
    if not chosen:
        raise SteerlabError(
            "neither heads nor neurons are left to change; give a reading at attn_z or mlp_post "
            "whose rho is not None"
        )
    drawn = None if random is None else torch.Generator().manual_seed(random)
    changes: list[Change] = []
    found: dict[str, dict[int, Any]] = {HEADS: {}, NEURONS: {}}
    for branch in chosen:
        penalty = rho[branch.site]
        assert penalty is not None
        weights = elastic_net(branch.agreement, penalty / math.sqrt(held.width), alpha)
        kept = weights.tolist() if branch.site == HEADS else int((weights != 0).sum())
        found[branch.site][branch.layer] = kept
        if weights.any():
            changes.append(branch.change(weights, drawn))
    if not changes:
        top = max(float(branch.agreement.abs().max()) for branch in chosen)
        raise SteerlabError(
            f"no component agrees by more than rho · alpha: the largest |cos| is {top:.3f}, which "
            f"is {top * math.sqrt(held.width):.3g}/√d; take a smaller rho or alpha"
        )
    settings = {"source": source, "target": target, "alpha": alpha, "random": random}
    settings |= {"rho_heads": rho_heads, "rho_neurons": rho_neurons}
    metadata = {"steer2edit": settings, "heads": found[HEADS], "neurons": found[NEURONS]}
    return WeightEdit(tuple(changes), held, metadata=metadata)


def agreements(model: Any, moments: Moments, *, source: str) -> Directions:
    """How far each head, or neuron, already writes along the step to each language, as directions
    for `sl.edits.write_along`, which does what `steer2edit` does without changing weights.

    `extra`, each [lang layer width] and zero of the source: `agreement`, g in units of 1/√d, of a
    head at each of its coordinates; `reads`, k̂; `writes`, (μ_t - μ_s)/‖W(μ_t - μ_s)‖, of which the
    output projection makes v̂. The vectors are the differences of texts' means.

    Args:
        model: what `load` takes.
        moments: `collect(model, corpus, site="mlp_post")`, or of `attn_z`.
        source: the language, or label, that directions lead from.
    """
    held = need_weights(load(model), "steer2edit")
    shape = moments.pooled.shape
    steps = torch.zeros(shape, dtype=torch.float64)
    extra = {name: torch.zeros(shape) for name in ("agreement", "reads", "writes")}
    _need(held, moments, source)
    for number in range(len(moments.layers)):
        read = _map(held, moments, number)  # which takes longer than a target does
        for place, lang in enumerate(moments.langs):
            if lang == source:
                continue
            branch = _branch(moments, number, source, lang, *read)
            steps[place, number] = branch.apart
            agreement = branch.agreement * math.sqrt(held.width)
            extra["agreement"][place, number] = agreement.repeat_interleave(branch.size)
            extra["reads"][place, number] = branch.reads.flatten()
            extra["writes"][place, number] = branch.apart / branch.length
    name = "steer2edit" if moments.site == NEURONS else "steer2edit heads"
    return build(moments, steps, name, source=source, extra=extra)


@dataclass(frozen=True, eq=False)
class _Branch:
    """The attention or the MLP of a layer: its output projection [out in], the step of what it
    reads, how long that of what it gives is, the mean of what it reads, and how many inputs a
    component has."""

    site: str
    layer: int
    module: str
    weight: Float[Tensor, "out width"]
    apart: Float[Tensor, " width"]
    length: Float[Tensor, ""]
    mean: Float[Tensor, " width"]
    size: int

    @property
    def step(self) -> Float[Tensor, " out"]:
        """v̂, the step of what it gives."""
        return self.weight @ self.apart / self.length

    @property
    def agreement(self) -> Float[Tensor, " component"]:
        """The cosine of each component's mean contribution with the step."""
        scaled = rearrange(
            self.weight * self.mean, "out (part size) -> part out size", size=self.size
        )
        given = scaled.sum(-1)
        length = given.norm(dim=-1).clamp(min=_LEAST)
        return given @ self.step / length

    @property
    def reads(self) -> Float[Tensor, "component size"]:
        """k̂: what a component's input is to be like to be written along the step."""
        read = rearrange(self.step @ self.weight, "(part size) -> part size", size=self.size)
        return read / read.norm(dim=-1, keepdim=True).clamp(min=_LEAST)

    def change(
        self, weights: Float[Tensor, " component"], random: torch.Generator | None
    ) -> Change:
        """λᵢ v̂ k̂ᵢᵀ of all components: v̂ times one row."""
        row = rearrange(weights[:, None] * self.reads, "part size -> 1 (part size)")
        along = self.step
        if random is not None:
            along = torch.randn(len(along), generator=random, dtype=along.dtype)
            along = along / along.norm()
        name = f"steer2edit of {self.site} at layer {self.layer}"
        none = torch.zeros(len(along), dtype=along.dtype)
        return Change(self.module, "added", along[:, None], row, none, name)


def _read(
    model: HuggingFaceModel, readings: tuple[Moments, ...], source: str, target: str
) -> Iterator[_Branch]:
    """What was read towards one target, layer by layer."""
    for moments in readings:
        _need(model, moments, source, target)
        for number in range(len(moments.layers)):
            yield _branch(moments, number, source, target, *_map(model, moments, number))


def _need(model: HuggingFaceModel, moments: Moments, *langs: str) -> None:
    """Raise for readings of another site or model, or without a language."""
    if moments.site not in (HEADS, NEURONS):
        raise SteerlabError(
            f"steer2edit reads heads at {HEADS} and neurons at {NEURONS}, not {moments.site}; "
            f"collect(model, corpus, site={HEADS!r})"
        )
    made = moments.provenance.get("model", {}).get("fingerprint")
    if made and model.fingerprint and not same_weights(made, model.fingerprint):
        raise SteerlabError(
            f"these means were read in another model than {model.name}; collect them again"
        )
    for lang in langs:
        if lang not in moments.langs:
            raise SteerlabError(
                f"nothing was read of {lang!r}; there are {' '.join(moments.langs)}"
            )


def _map(
    model: HuggingFaceModel, moments: Moments, number: int
) -> tuple[str, Float[Tensor, "out width"], int]:
    """The output projection of a layer: its name, its weights, and how many inputs a component
    has."""
    name = writer(model, moments.layers[number], moments.site).name
    module = model.hf.get_submodule(name)
    weight = oriented(module, module.weight.detach()).double().cpu()
    return name, weight, model.width_of(HEADS) // model.heads if moments.site == HEADS else 1


def _branch(
    moments: Moments,
    number: int,
    source: str,
    target: str,
    name: str,
    weight: Float[Tensor, "out width"],
    size: int,
) -> _Branch:
    start, end = (
        moments.pooled[moments.langs.index(lang), number].double() for lang in (source, target)
    )
    layer = moments.layers[number]
    step = weight @ (end - start)
    if not step.any():
        raise SteerlabError(f"{source!r} and {target!r} have one mean at layer {layer}")
    return _Branch(
        moments.site, layer, name, weight, end - start, step.norm(), (start + end) / 2, size
    )
