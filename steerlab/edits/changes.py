"""What each operator adds to the residual stream: pure functions, each row of a batch with
tensors of its own."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Tensors = Mapping[str, Tensor]


def _shift(h: Tensor, p: Tensors) -> Tensor:
    return p["shift"][:, None]


def _inside(h: Tensor, read: Tensor, write: Tensor) -> Tensor:
    """What rows of `read` [n rank width] find in h, put back along rows of `write`."""
    return torch.einsum("npr,nrw->npw", torch.einsum("npw,nrw->npr", h, read), write)


def _removal(h: Tensor, p: Tensors) -> Tensor:
    return -p["fraction"][:, None, None] * _inside(h, p["basis"], p["basis"])


def _turn(h: Tensor, p: Tensors) -> Tensor:
    first, second = p["first"][:, None], p["second"][:, None]
    a, b = (h * first).sum(-1, keepdim=True), (h * second).sum(-1, keepdim=True)
    cos, sin = p["angle"].cos()[:, None, None], p["angle"].sin()[:, None, None]
    return (a * cos - b * sin - a) * first + (a * sin + b * cos - b) * second


def _levelling(h: Tensor, p: Tensors) -> Tensor:
    unit = p["unit"][:, None]
    missing = p["level"][:, None, None] - (h * unit).sum(-1, keepdim=True)
    return p["fraction"][:, None, None] * missing * unit


def _erasure(h: Tensor, p: Tensors) -> Tensor:
    return -p["fraction"][:, None, None] * _inside(h - p["centre"][:, None], p["read"], p["write"])


def _softening(h: Tensor, p: Tensors) -> Tensor:
    return p["fraction"][:, None, None] * (_inside(h, p["half"], p["half"]) - h)


def _replacement(h: Tensor, p: Tensors) -> Tensor:
    new = h + p["weight"][:, None] * (p["values"][:, None] - h)
    norm = torch.linalg.vector_norm
    return (
        new * (norm(h, dim=-1, keepdim=True) / norm(new, dim=-1, keepdim=True).clamp(min=1e-30)) - h
    )


def _amplification(h: Tensor, p: Tensors) -> Tensor:
    inside = _inside(h, p["basis"], p["basis"])
    size = torch.linalg.vector_norm(inside, dim=-1, keepdim=True)
    return p["step"][:, None, None] * inside / size.clamp(min=1e-30)


def _resetting(h: Tensor, p: Tensors) -> Tensor:
    return p["shift"][:, None] - p["weight"][:, None] * h


def _latents(h: Tensor, p: Tensors) -> Tensor:
    """relu(pre) · [pre > threshold] [n pos rank]; a unit of zeros, which fills up a smaller
    rank, is never on."""
    pre = torch.einsum("npw,nrw->npr", h, p["encoder"]) + p["bias"].mT
    return pre.relu() * (pre > p["threshold"].mT)


def _settling(h: Tensor, p: Tensors) -> Tensor:
    missing = p["goal"].mT - _latents(h, p)
    return p["fraction"][:, None, None] * torch.einsum("npr,nrw->npw", missing, p["decoder"])


def _gated_shift(h: Tensor, p: Tensors) -> Tensor:
    return (_latents(h, p) > 0).any(-1, keepdim=True) * p["shift"][:, None]


def _signed(h: Tensor, p: Tensors) -> Tensor:
    return p["shift"][:, None] - (_latents(h, p) @ p["prototype"]) * p["away"][:, None]


# What each operator adds to h [n pos width] in float32, given its tensors, each with a leading axis
# of 1 or n; the sum may have one position for all.
CHANGES: dict[str, Callable[[Tensor, Tensors], Tensor]] = {
    "add": _shift,
    "ablate": _removal,
    "rotate": _turn,
    "affine": _levelling,
    "conceptor": _softening,
    "erase": _erasure,
    "overwrite": _replacement,
    "push": _amplification,
    "neuron_add": _resetting,
    "neuron_set": _resetting,
    "neuron_zero": _resetting,
    "clamp": _settling,
    "gate": _gated_shift,
    "signed_shift": _signed,
}
