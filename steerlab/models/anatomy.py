"""Where in a Hugging Face decoder's block the sites are, and how a function gets to see and
change what is there."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.core.sites import SITES

Act = Callable[[Tensor], Tensor | None]

_MLPS = (
    "mlp",
    "feed_forward",
    "ffn",
    "ff",
)  # names of an MLP in a block; some blocks hold its projections themselves
_PROJECTIONS = (  # what goes into the non-linearity, and what comes after it
    ("gate_up_proj", "down_proj"),
    ("gate_proj", "down_proj"),
    ("up_proj", "down_proj"),
    ("w1", "w2"),
    ("c_fc", "c_proj"),
    ("dense_h_to_4h", "dense_4h_to_h"),
    ("fc_in", "fc_out"),
    ("fc1", "fc2"),
)


@dataclass(frozen=True)
class Projections:
    """An MLP's two ends: `first` gives what goes into the non-linearity, `last` takes what comes
    out of it.

    `width`: how many neurons there are. `fused`: `first` gives the gate and, behind it, what the
    gate multiplies.
    """

    first: torch.nn.Module
    last: torch.nn.Module
    width: int
    fused: bool


def blocks(hf: torch.nn.Module, count: int) -> torch.nn.ModuleList:
    """The decoder's blocks: the outermost list of modules as long as the model is deep."""
    found = [m for m in hf.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == count]
    if not found:
        raise SteerlabError(
            f"{type(hf).__name__} has no list of {count} blocks; it is no decoder that steerlab "
            "knows"
        )
    return found[0]


def projections(block: torch.nn.Module) -> Projections:
    """The projections of a block's MLP, found by their names and widths; experts and unknown
    MLPs raise."""
    mlp = next(
        (found for name in _MLPS if (found := getattr(block, name, None)) is not None), block
    )
    if hasattr(mlp, "experts"):
        raise SteerlabError(
            f"{type(mlp).__name__} is a mixture of experts: which neurons a token meets differs "
            "from token to token, "
            "so it has no site 'mlp_pre' or 'mlp_post'; use resid_pre or resid_post"
        )
    for names in _PROJECTIONS:
        first, last = (getattr(mlp, name, None) for name in names)
        if first is None or last is None:
            continue
        width, made = _features(last)[0], _features(first)[1]
        if made in (width, 2 * width):
            return Projections(first, last, width, made == 2 * width)
    known = ", ".join(" and ".join(names) for names in _PROJECTIONS)
    raise SteerlabError(
        f"{type(block).__name__} has no MLP that steerlab knows, so no site 'mlp_pre' or "
        "'mlp_post': the projections "
        f"into and out of it are named {known}; use resid_pre or resid_post"
    )


def _features(linear: Any) -> tuple[int, int]:
    """Features in and out of a linear layer, or of GPT-2's `Conv1D`."""
    if hasattr(linear, "in_features"):
        return int(linear.in_features), int(linear.out_features)
    return int(linear.weight.shape[0]), int(linear.weight.shape[1])


def attach(block: torch.nn.Module, site: str, act: Act) -> Any:
    """Let a function see what is at a site of a block, and put what it returns, if anything, in
    its place."""
    if site == "resid_pre":
        return _before(block, act)
    if site == "resid_post":
        return _after(block, act)
    if site not in SITES:
        raise SteerlabError(f"there is no site {site!r}; the sites are {', '.join(SITES)}")
    mlp = projections(block)
    if site == "mlp_post":
        return _before(mlp.last, act)
    return _after(mlp.first, _gate(act, mlp.width) if mlp.fused else act)


def _before(module: torch.nn.Module, act: Act) -> Any:
    def hook(_: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        new = act(args[0] if args else kwargs["hidden_states"])
        if new is None:
            return None
        return ((new, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": new})

    return module.register_forward_pre_hook(hook, with_kwargs=True)


def _after(module: torch.nn.Module, act: Act) -> Any:
    def hook(_: Any, __: tuple, out: Any) -> Any:
        new = act(out[0] if isinstance(out, tuple) else out)
        if new is None:
            return None
        return (new, *out[1:]) if isinstance(out, tuple) else new

    return module.register_forward_hook(hook)


def _gate(act: Act, width: int) -> Act:
    """The function on the gate's half of a fused projection."""

    def halved(h: Tensor) -> Tensor | None:
        new = act(h[..., :width])
        return None if new is None else torch.cat([new, h[..., width:]], -1)

    return halved
