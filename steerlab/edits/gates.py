"""Gates: where and how far an edit acts, decided by the activations or by how far decoding is.

    edit = sl.add(direction).when(sl.edits.gates.positive(direction))

A gate gives each position a factor, by which what the edit adds is multiplied: 0 is shut, 1 is
open. It reads h at the place of the part that it stands before.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from steerlab.core.directions import Direction
from steerlab.core.equality import by_content
from steerlab.core.errors import SteerlabError
from steerlab.core.parameters import needed
from steerlab.core.settings import need_finite
from steerlab.core.sites import ORDER
from steerlab.edits.digest import Unreadable, function_digest
from steerlab.edits.requirements import source_extra_of
from steerlab.edits.same_anywhere import logistic

Tensors = Mapping[str, Tensor]

_MARK = "gate "  # begins the names of a gate's tensors among those of a part


@dataclass(frozen=True, eq=False)
class Gate:
    """A function that gives each position of a part a factor.

    Args:
        function: (h, tensors, positions, kept) -> (factors [row pos], kept [row]). h is in float32
            [row pos width]; `kept` is one number for each row that stays from pass to pass of one
            `with`, NaN at first.
        name: what messages call it.
        tensors: what the function gets, each with a leading axis of the layers.
        layers: of the tensors; None where they are the same at every layer.
        site: where in a layer it can read; None for anywhere.
        whole: whether the function looks at a row's positions together or counts them, so that a
            common beginning of several rows cannot run by itself.
        blind: whether it works without positions, as in a plain hook.
        reads: (site, layer) of another place, at which the function sees h; its factors are then of
            whole rows, [row 1], kept from the prompt on. None reads where the edit acts.
    """

    function: Callable[[Tensor, Tensors, Any, Tensor], tuple[Any, Tensor]]
    name: str
    tensors: Tensors = field(default_factory=dict)
    layers: tuple[int, ...] | None = None
    site: str | None = None
    whole: bool = False
    blind: bool = True
    reads: tuple[str, int] | None = None

    __eq__ = by_content

    @property
    def digest(self) -> str:
        """SHA-256 of what the gate does, without its tensors, which are the part's."""
        own = self.function.digest if isinstance(self.function, _Own) else None
        hashed: list[Any] = [own or function_digest(self.function), self.name]
        if self.reads is not None:
            hashed.append(self.reads)
        return hashlib.sha256(json.dumps(hashed).encode()).hexdigest()

    def at(self, layer: int, site: str) -> dict[str, Tensor]:
        """Its tensors at a layer, by the names that they have in a part, with an axis of rows."""
        if self.reads is not None and not _before(self.reads, (site, layer)):
            raise SteerlabError(
                f"the gate {self.name} reads {self.reads[0]} of layer {self.reads[1]}, which comes "
                f"behind the edit at {site} of layer {layer}; read an earlier layer"
            )
        if self.site not in (None, site):
            raise SteerlabError(
                f"the gate {self.name} reads {self.site}, and the edit acts at {site}; collect and "
                "fit at that site"
            )
        number = 0
        if self.layers is not None:
            if layer not in self.layers:
                raise SteerlabError(
                    f"the gate {self.name} is of the layers {' '.join(map(str, self.layers))}, and "
                    f"the edit acts at layer {layer}; take a direction of that layer too"
                )
            number = self.layers.index(layer)
        return {
            f"{_MARK}{name}": tensor[number : number + 1].float()
            for name, tensor in self.tensors.items()
        }

    def factors(
        self, h: Tensor, tensors: Tensors, positions: Any, kept: Tensor
    ) -> tuple[Float[Tensor, "row pos"], Float[Tensor, " row"]]:
        """The factor of each position, 0 where there is no text, and what is kept of each row;
        raises for what is no factor."""
        if positions is None and not self.blind:
            raise SteerlabError(
                f"a plain hook has no positions to give to the gate {self.name}; use edit.on(model)"
            )
        factors: Any  # a user's function may return anything
        factors, kept = self.function(h, tensors, positions, kept)
        shape = tuple(h.shape[:2])
        if (
            not isinstance(factors, Tensor)
            or factors.ndim != 2
            or factors.shape
            not in (
                shape,
                (shape[0], 1),
            )
        ):
            given = list(factors.shape) if isinstance(factors, Tensor) else type(factors).__name__
            raise SteerlabError(
                f"the gate {self.name} gave {given}, and there are {list(shape)} positions (row, "
                "pos); return a factor for each, with 1 in the place of pos where all have the same"
            )
        factors = factors.to(h.dtype).expand(shape)
        if positions is not None:  # padding may hold anything
            factors = torch.where(positions.real, factors, torch.zeros_like(factors))
        if not bool(torch.isfinite(factors).all()):
            raise SteerlabError(f"the gate {self.name} gave NaN or infinity; return finite factors")
        return factors, kept


def _before(place: tuple[str, int], other: tuple[str, int]) -> bool:
    """Whether a place of a model comes before another, or is the same."""
    return (place[1], ORDER.index(place[0])) <= (other[1], ORDER.index(other[0]))


def is_gates(name: str) -> bool:
    """Whether a tensor of a part is its gate's, by its name."""
    return name.startswith(_MARK)


def own_tensors(tensors: Tensors) -> dict[str, Tensor]:
    """Of a part's tensors those of its function."""
    return {name: each for name, each in tensors.items() if not name.startswith(_MARK)}


def gate_tensors(tensors: Tensors) -> dict[str, Tensor]:
    """Of a part's tensors those of its gate, by the names that the gate calls them."""
    own = {name: each for name, each in tensors.items() if name.startswith(_MARK)}
    return {name.removeprefix(_MARK): each for name, each in own.items()}


def as_gate(gate: Any) -> Gate:
    """A gate, or one of a function of (h) or (h, positions) that gives factors [row pos]."""
    if isinstance(gate, Gate):
        return gate
    if not callable(gate) or isinstance(gate, Direction):
        raise SteerlabError(
            f"a gate is needed, not a {type(gate).__name__}; give one of sl.edits.gates, such as "
            "positive(direction), or a function from h to a factor for each position"
        )
    name = getattr(gate, "__name__", type(gate).__name__)
    takes = len(needed(gate) or ())
    if takes not in (1, 2):
        raise SteerlabError(f"the gate {name} takes (h) or (h, positions), not {takes} values")
    try:
        digest = function_digest(gate)
    except Unreadable as error:
        raise SteerlabError(
            f"what the gate {name} does cannot be read ({error}), so that it has no digest; write "
            "it as a function in a file"
        ) from error
    own = _Own(gate, takes, digest)
    # What it does with a row's positions is not known.
    return Gate(own, name, whole=True, blind=takes == 1)


@dataclass(frozen=True)
class _Own:
    """A user's function as that of a gate."""

    function: Callable[..., Any]
    takes: int
    digest: str

    def __call__(
        self, h: Tensor, tensors: Tensors, positions: Any, kept: Tensor
    ) -> tuple[Any, Tensor]:  # what it gives is checked by the gate
        return self.function(*(h, positions)[: self.takes]), kept


def restored(function: str, name: str, reads: tuple[str, int] | None) -> Gate:
    """The gate of a part that comes from a file, by the name of its function."""
    for known, (whole, blind) in _FLAGS.items():
        if known.__name__ == function:
            return Gate(known, name, whole=whole, blind=blind, reads=reads)
    raise SteerlabError(f"there is no gate with the function {function!r} here")


# ------------------------------------------------------------------------------------- the gates


def _is_positive(
    h: Tensor, tensors: Tensors, positions: Any, kept: Tensor
) -> tuple[Tensor, Tensor]:
    along = (h * tensors["unit"][:, None]).sum(-1)
    return (along > tensors["level"][:, None]).float(), kept


def positive(direction: Direction, *, level: float | None = None) -> Gate:
    """Open where h · u > l, u the direction's unit vector.

    Args:
        direction: at the layers of the edit.
        level: None for l = 0, as Angular Steering's adaptive form has it; else in natural gaps from
            the source's mean, so that 0.5 is halfway between the two means.
    """
    if level is None:
        levels = torch.zeros(len(direction.layers))
    else:
        from_mean = (direction.unit * direction.start).sum(-1)
        levels = from_mean + need_finite("level", level) * direction.gap
    tensors = {"unit": direction.unit, "level": levels}
    return Gate(_is_positive, "positive", tensors, direction.layers, direction.site)


def _is_like(h: Tensor, tensors: Tensors, positions: Any, kept: Tensor) -> tuple[Tensor, Tensor]:
    mean, there = prompt_mean(h, positions)
    unit = tensors["unit"]
    projected = torch.tanh((mean * unit).sum(-1, keepdim=True) * unit)
    similar = torch.nn.functional.cosine_similarity(mean, projected, dim=-1)
    over = similar > tensors["threshold"]
    verdict = torch.where(tensors["above"] > 0, over, ~over).float()
    kept = torch.where(there, verdict, kept)
    need_prompt(kept, "like")
    return kept[:, None], kept


def like(
    direction: Direction, threshold: float, *, above: bool = True, layer: int | None = None
) -> Gate:
    """Open for rows whose prompt is like a condition: cos(h̄, tanh((c·h̄) c)) > threshold.

    h̄ is the mean over the prompt's positions and c the direction's unit vector. The verdict of the
    prompt holds for the whole row, what is generated after it included; a prompt that is read in
    pieces (`prefill_chunk_size`) is judged by each piece. Source: CAST (Lee et al., arXiv
    2409.05907), whose condition has a layer of its own. Here it is no later than the edit, since a
    pass has no second look: the released code decides in the first pass for those that follow.

    Raises `SteerlabError` for a layer that the direction lacks; the edit it is put before, for one
    behind its own.

    Args:
        direction: the condition.
        threshold: of the cosine.
        above: whether it is open above the threshold or up to it.
        layer: where the condition is read, before anything is edited there, at the direction's
            site; by default at each layer where the edit acts.
    """
    if layer is not None:
        direction = direction.at(layer)
    layers = len(direction.layers)
    tensors = {
        "unit": direction.unit,
        "threshold": torch.full((layers,), need_finite("threshold", threshold)),
        "above": torch.full((layers,), float(above)),
    }
    if layer is not None:
        reads = (direction.site, layer)
        return Gate(_is_like, "like", tensors, whole=True, blind=False, reads=reads)
    return Gate(
        _is_like, "like", tensors, direction.layers, direction.site, whole=True, blind=False
    )


def _any_latent(h: Tensor, tensors: Tensors, positions: Any, kept: Tensor) -> tuple[Tensor, Tensor]:
    pre = einsum(h, tensors["encoder"], "row pos width, row rank width -> row pos rank")
    pre = pre + tensors["bias"].mT
    return ((pre > 0) & (pre > tensors["threshold"].mT)).any(-1).float(), kept


def latents(direction: Direction) -> Gate:
    """Open where some latent of the source is on, as the operator `gate` is.

    Needs what `gated` makes of a selection of an SAE's latents, the source's among them.
    """
    units = source_extra_of(direction, "the gate latents", "gated", "encoder", "bias", "threshold")
    tensors = {
        "encoder": units["encoder"],
        "bias": units["bias"][..., None],
        "threshold": units["threshold"][..., None],
    }
    return Gate(_any_latent, "latents", tensors, direction.layers, direction.site)


def _is_after(h: Tensor, tensors: Tensors, positions: Any, kept: Tensor) -> tuple[Tensor, Tensor]:
    generated = positions.text & positions.generated
    begins = (positions.text & ~positions.generated).any(1)
    # A pass with a prompt in it begins anew, also where there is no cache and all is run again.
    before = torch.where(begins | kept.isnan(), torch.zeros_like(kept), kept)
    number = before[:, None] + generated.cumsum(1)  # of a generated token, from 1
    factors = (generated & (number > tensors["first"][:, None])).float()
    return factors, before + generated.sum(1)


def after(n: int) -> Gate:
    """Open from behind the first `n` generated tokens on; shut on the prompt.

    The last token of the prompt predicts the first generated one, so that of an edit with
    `after(0)` the first generated token is the model's own.
    """
    given: Any = n
    if isinstance(given, bool) or not isinstance(given, int) or given < 0:
        raise SteerlabError(f"after({n!r}): give a number of generated tokens, 0 or more")
    return Gate(_is_after, "after", {"first": torch.tensor([float(n)])}, whole=True, blind=False)


def _intensity(h: Tensor, tensors: Tensors, positions: Any, kept: Tensor) -> tuple[Tensor, Tensor]:
    unit = tensors["unit"][:, None]
    cosine = torch.nn.functional.cosine_similarity(h, unit.expand_as(h), dim=-1)
    return logistic((-cosine).clamp(min=0)), kept


def sic(direction: Direction) -> Gate:
    """FlexAC's steering intensity: σ(max(-cos(h, v), 0)), from .5 where h leans towards the
    direction to .731 where it is opposite.

    Source: FlexAC (arXiv 2510.11190), of which no code is released; its full form is
    `add(direction, keep_norm=True).when(sic(direction))` but for one thing: there the length is
    restored after the intensity, here before, so that a position loses up to a little of it.

    Args:
        direction: v.
    """
    return Gate(_intensity, "sic", {"unit": direction.unit}, direction.layers, direction.site)


def _of_row(h: Tensor, tensors: Tensors, positions: Any, kept: Tensor) -> tuple[Tensor, Tensor]:
    table = tensors["factors"][..., 0].expand(len(h), -1)
    last = int(positions.rows.max())
    if last >= table.shape[1]:
        raise SteerlabError(
            f"the gate rows has {table.shape[1]} factors, and the batch has a row {last} (from 0); "
            "give each row one"
        )
    return table.gather(1, positions.rows[:, None]), kept


def rows(factors: Sequence[float] | Tensor) -> Gate:
    """Each row of a batch has a factor of its own: what a rule of yours says of each prompt.

    With `stack` rows may carry different edits; this is one edit that some of the rows get.

    Args:
        factors: one for each row, true and false among them.
    """
    given = torch.as_tensor(factors, dtype=torch.float32)
    if given.ndim != 1 or not len(given) or not torch.isfinite(given).all():
        raise SteerlabError(f"rows takes a finite number for each row, not {factors!r:.60}")
    return Gate(_of_row, "rows", {"factors": given[None, :, None]}, blind=False)


def _is_picked(h: Tensor, tensors: Tensors, positions: Any, kept: Tensor) -> tuple[Tensor, Tensor]:
    mean, there = prompt_mean(h, positions)
    logits = (mean[:, None] * tensors["weights"]).sum(-1) + tensors["bias"][..., 0]
    number = tensors["number"].long().expand(len(h))
    chance = logits.softmax(-1).gather(1, number[:, None])[:, 0]
    factor = torch.where(tensors["sure"] > 0, chance, torch.ones_like(chance))
    kept = torch.where(there, (logits.argmax(-1) == number) * factor, kept)
    need_prompt(kept, "picked")
    return kept[:, None], kept


def picked(
    weights: Float[Tensor, "kind width"],
    bias: Float[Tensor, " kind"],
    number: int,
    *,
    reads: tuple[str, int],
    sure: bool = False,
) -> Gate:
    """Open for rows of whose prompt a softmax probe says that it is of one kind.

    The probe reads the mean over the prompt's positions before anything is edited there; its
    verdict holds for the whole row. One edit for each kind, each behind its own gate, makes a
    selector. Source: G-ACT (arXiv 2506.18887), of which neither code nor the kind of probe is
    published.

    Args:
        weights: of the probe.
        bias: of the probe.
        number: of the kind.
        reads: (site, layer) where it reads, no later than where the edit acts.
        sure: multiply by the probe's chance of the kind.
    """
    if not 0 <= number < len(weights):
        raise SteerlabError(f"there is no kind {number}; there are {len(weights)}")
    if not (torch.isfinite(weights).all() and torch.isfinite(bias).all()):
        raise SteerlabError("the probe holds NaN or infinity")
    tensors = {
        "weights": weights[None],
        "bias": bias[None, :, None],
        "number": torch.tensor([float(number)]),
        "sure": torch.tensor([float(sure)]),
    }
    return Gate(_is_picked, "picked", tensors, whole=True, blind=False, reads=reads)


def prompt_mean(h: Tensor, positions: Any) -> tuple[Float[Tensor, "row width"], Tensor]:
    """The mean of h over each row's prompt, and whether this pass has any of it, [row]."""
    prompt = positions.text & ~positions.generated
    count = prompt.sum(1, keepdim=True)
    # A choice and no product: padding may hold NaN.
    of_prompt = torch.where(prompt[..., None], h, torch.zeros_like(h))
    return of_prompt.sum(1) / count.clamp(min=1), count[:, 0] > 0


def need_prompt(kept: Tensor, name: str) -> None:
    """Raise where a gate that decides on the prompt has seen none of a row."""
    if bool(kept.isnan().any()):
        raise SteerlabError(
            f"the gate {name} decides on the prompt, and has seen none of a row; run its prompt "
            "under the edit too"
        )


def controls(h: Tensor, tensors: Tensors, positions: Any, kept: Tensor) -> tuple[Tensor, Tensor]:
    """What a controller (`engine.controller`) says of each row: a bounded strength, times the
    weight of the layer; 0 where it does not act.

    It reads h at the last position of the prompt, standardised, through one hidden layer.
    """
    prompt = positions.text & ~positions.generated
    number = prompt.long().cumsum(1) * prompt
    last = number.argmax(1)
    there = prompt.any(1)
    x = h[torch.arange(len(h), device=h.device), last]
    x = torch.where(there[:, None], x, torch.zeros_like(x))
    x = (x - tensors["centre"]) / tensors["scale"]
    hidden = torch.relu((x[:, None] * tensors["first"]).sum(-1) + tensors["first_bias"])
    logit = (hidden * tensors["act"]).sum(-1) + tensors["act_bias"]
    weight = logistic((hidden * tensors["layer"]).sum(-1) + tensors["layer_bias"])
    acts = (logit > 0).to(h.dtype) if bool((tensors["soft"] == 0).all()) else 1.0
    factor = tensors["most"] * logistic(logit) * weight * acts
    kept = torch.where(there, factor, kept)
    need_prompt(kept, "controller")
    return kept[:, None], kept


# What a file names, and whether it is whole and blind.
_FLAGS: dict[Callable[..., Any], tuple[bool, bool]] = {
    _is_positive: (False, True),
    _is_like: (True, False),
    _any_latent: (False, True),
    _is_after: (True, False),
    _intensity: (False, True),
    _of_row: (False, False),
    _is_picked: (True, False),
    controls: (True, False),
}


def named(gate: Gate) -> str:
    """The name of a gate's function in a file; raises for a user's own, since a file holds no
    code."""
    if gate.function not in _FLAGS:
        raise SteerlabError(
            f"the edit has a gate of your own, {gate.name}, and a file holds no code; save the "
            "edit without it, and put the gate before it again by edit.when"
        )
    return str(gate.function.__name__)
