"""Edits of the MLPs' neurons, at `mlp_post`: a language's own are added to, set or zeroed.

CLaS-Bench edits act(gate) before it is multiplied by `up`; here it is the product, the neuron's
value, which the output projection reads. A zero is the same zero at both places. Layers at which no
neuron changes are left alone.
"""

from torch import Tensor

from steerlab.core.directions import Direction
from steerlab.core.errors import SteerlabError
from steerlab.edits.edit import Edit, finite, made
from steerlab.edits.requirements import extra_of, source_extra_of

SITE, FIT = "mlp_post", "masked"


def neuron_add(
    direction: Direction,
    *,
    strength: float = 1.0,
    against: str | None = None,
    silence: bool = False,
    positions: str = "all",
) -> Edit:
    """Add to the target's neurons their mean values on its text: h + strength · mask ∘ values.

    `against="rest"` adds values less the other languages' mean (CLaS-Bench's "diffmean" of neurons;
    the first is its "additive"). `silence` first sets the source's neurons to 0, but those that are
    the target's too. Strength 0 without `silence` is the identity. Needs what `masked` makes of a
    selection of neurons. Source: CLaS-Bench (arXiv 2601.08331), after LAPE (arXiv 2402.16438).
    """
    if against not in (None, "rest"):
        raise SteerlabError(
            f"the values are taken as they are (against=None) or less the 'rest', not {against!r}"
        )
    found = _neurons(direction, "neuron_add", *(("rest",) if against else ()))
    values = found["values"] - found["rest"] if against else found["values"]
    shift = finite("strength", strength) * found["mask"] * values
    quiet = _silenced(direction, "neuron_add", found["mask"]) if silence else 0 * found["mask"]
    return _busy(
        "neuron_add", direction, positions, shift, quiet, none=strength == 0 and not silence
    )


def neuron_set(
    direction: Direction,
    *,
    scale: float = 1.0,
    fraction: float = 1.0,
    silence: bool = False,
    positions: str = "all",
) -> Edit:
    """Set the target's neurons to their mean values on its text: h + fraction · mask ∘ (scale ·
    values - h).

    `silence` sets the source's neurons to 0 likewise, but those that are the target's too;
    `fraction=0` is the identity. Needs what `masked` makes of a selection of neurons. Source:
    CLaS-Bench's "replacement" (arXiv 2601.08331).
    """
    found, size = _neurons(direction, "neuron_set"), finite("fraction", fraction)
    shift = size * finite("scale", scale) * found["mask"] * found["values"]
    weight = (
        found["mask"] + _silenced(direction, "neuron_set", found["mask"])
        if silence
        else found["mask"]
    )
    return _busy("neuron_set", direction, positions, shift, size * weight, none=size == 0)


def neuron_zero(direction: Direction, *, fraction: float = 1.0, positions: str = "all") -> Edit:
    """Take the target's neurons away: h - fraction · mask ∘ h.

    Fraction 1 sets them to 0, 0 is the identity. Needs what `masked` makes of a selection of
    neurons. Source: LAPE's deactivation (arXiv 2402.16438).
    """
    mask, size = _neurons(direction, "neuron_zero")["mask"], finite("fraction", fraction)
    return _busy("neuron_zero", direction, positions, 0 * mask, size * mask, none=size == 0)


def _neurons(direction: Direction, operator: str, *more: str) -> dict[str, Tensor]:
    """The target's mask and values; a direction of another site, and layers without a neuron,
    raise."""
    if direction.site != SITE:
        raise SteerlabError(
            f"{operator} edits neurons, at {SITE}, and this direction to {direction.target!r} is "
            f"of {direction.site}: "
            "collect the firing of neurons (no SAEs) and select from that"
        )
    found = extra_of(direction, operator, FIT, "mask", "values", *more)
    if not found["mask"].any():
        told = ", ".join(map(str, direction.layers))
        raise SteerlabError(
            f"{operator}: {direction.target!r} has no neuron at layers {told}, so that nothing "
            "would change; take more "
            "layers, or select with other thresholds"
        )
    return found


def _silenced(direction: Direction, operator: str, kept: Tensor) -> Tensor:
    """1 at the source's neurons that are not the target's; a layer may have none, all layers may
    not."""
    theirs = source_extra_of(direction, operator, FIT, "mask")["mask"]
    if not theirs.any():
        told = ", ".join(map(str, direction.layers))
        raise SteerlabError(
            f"{operator}: {direction.source!r} has no neuron at layers {told} that could be "
            "silenced; leave silence= "
            "out, or select with other thresholds"
        )
    return theirs * (1 - kept)


def _busy(
    operator: str,
    direction: Direction,
    positions: str,
    shift: Tensor,
    weight: Tensor,
    *,
    none: bool,
) -> Edit:
    """The edit, at the layers where some neuron changes; `none` if it is asked to change
    nothing."""
    if none:
        return made(
            operator, direction, positions, {"shift": shift, "weight": weight}, identity=True
        )
    where = (shift != 0).any(-1) | (weight != 0).any(-1)
    layers = [layer for layer, busy in zip(direction.layers, where.tolist(), strict=True) if busy]
    if not layers:
        raise SteerlabError(
            f"{operator}: the neurons of {direction.target!r} have values of 0, so that nothing "
            "would change; take "
            "others"
        )
    return made(
        operator,
        direction.at(*layers),
        positions,
        {"shift": shift[where], "weight": weight[where]},
        identity=False,
    )
