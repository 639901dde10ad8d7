"""Gates: where and how far an edit acts, decided by the activations or by how far decoding is.

    edit = sl.add(direction).when(sl.edits.gates.positive(direction))

A gate gives each position a factor, by which what the edit adds is multiplied: 0 is shut, 1 is
open. It reads h at the place of the part that it stands before.
"""

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from steerlab.core.directions import Direction
from steerlab.core.equality import by_content
from steerlab.core.errors import SteerlabError
from steerlab.edits.digest import Unreadable, function_digest
from steerlab.edits.requirements import need_finite, source_extra_of

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
    """

    function: Callable[[Tensor, Tensors, Any, Tensor], tuple[Any, Tensor]]
    name: str
    tensors: Tensors = field(default_factory=dict)
    layers: tuple[int, ...] | None = None
    site: str | None = None
    whole: bool = False
    blind: bool = True

    __eq__ = by_content

    @property
    def digest(self) -> str:
        """SHA-256 of what the gate does, without its tensors, which are the part's."""
        own = self.function.digest if isinstance(self.function, _Own) else None
        hashed = [own or function_digest(self.function), self.name]
        return hashlib.sha256(json.dumps(hashed).encode()).hexdigest()

    def at(self, layer: int, site: str) -> dict[str, Tensor]:
        """Its tensors at a layer, by the names that they have in a part, with an axis of rows."""
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
            factors = torch.where(positions.text, factors, torch.zeros_like(factors))
        if not bool(torch.isfinite(factors).all()):
            raise SteerlabError(f"the gate {self.name} gave NaN or infinity; return finite factors")
        return factors, kept


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
    needed = [
        each
        for each in inspect.signature(gate).parameters.values()
        if each.default is each.empty
        and each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
    ]
    if len(needed) not in (1, 2):
        raise SteerlabError(
            f"the gate {name} takes (h) or (h, positions), not {len(needed)} values"
        )
    try:
        digest = function_digest(gate)
    except Unreadable as error:
        raise SteerlabError(
            f"what the gate {name} does cannot be read ({error}), so that it has no digest; write "
            "it as a function in a file"
        ) from error
    own = _Own(gate, len(needed), digest)
    # What it does with a row's positions is not known.
    return Gate(own, name, whole=True, blind=len(needed) == 1)


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
    prompt = positions.text & ~positions.generated
    count = prompt.sum(1, keepdim=True)
    # A choice and no product: padding may hold NaN.
    of_prompt = torch.where(prompt[..., None], h, torch.zeros_like(h))
    mean = of_prompt.sum(1) / count.clamp(min=1)
    unit = tensors["unit"]
    projected = torch.tanh((mean * unit).sum(-1, keepdim=True) * unit)
    similar = torch.nn.functional.cosine_similarity(mean, projected, dim=-1)
    over = similar > tensors["threshold"]
    verdict = torch.where(tensors["above"] > 0, over, ~over).float()
    kept = torch.where(count[:, 0] > 0, verdict, kept)
    if bool(kept.isnan().any()):
        raise SteerlabError(
            "the gate like decides on the prompt, and has seen none of a row; run its prompt under "
            "the edit too"
        )
    return kept[:, None], kept


def like(direction: Direction, threshold: float, *, above: bool = True) -> Gate:
    """Open for rows whose prompt is like a condition: cos(h̄, tanh((c·h̄) c)) > threshold.

    h̄ is the mean over the prompt's positions and c the direction's unit vector. The verdict of the
    prompt holds for the whole row, what is generated after it included. The condition is read where
    the edit acts; a prompt that is read in pieces (`prefill_chunk_size`) is judged by each piece.
    Source: CAST (Lee et al., arXiv 2409.05907), which may read the condition at another layer.

    Args:
        direction: the condition.
        threshold: of the cosine.
        above: whether it is open above the threshold or up to it.
    """
    layers = len(direction.layers)
    tensors = {
        "unit": direction.unit,
        "threshold": torch.full((layers,), need_finite("threshold", threshold)),
        "above": torch.full((layers,), float(above)),
    }
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
    return torch.sigmoid((-cosine).clamp(min=0)), kept


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
