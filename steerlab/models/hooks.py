"""How a function gets to see and change what is at a site of a Hugging Face decoder's block."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from steerlab.core.sites import ROUTER, need_site
from steerlab.models.anatomy import Anatomy, projections
from steerlab.models.outputs import first_of, with_first

Act = Callable[[Tensor], Tensor | None]


def attach(anatomy: Anatomy, layer: int, site: str, act: Act) -> Any:
    """Let a function see what is at a site of a block, and put what it returns, if anything, in
    its place."""
    need_site(site)
    block = anatomy.blocks[layer]
    if site == "resid_pre":
        return _before(block, act)
    if site == "resid_post":
        return _after(block, act)
    if site == ROUTER:
        return anatomy.router(layer).attach(_on_copy(act))
    if site == "mlp_pre":
        mlp = projections(block)
        return _after(mlp.first, _gate(act, mlp.width) if mlp.fused else act)
    if site == "mlp_post":
        return _before(projections(block).last, act)
    module = anatomy.module(layer, site)
    if site == "attn_z":
        return _before(module, act)
    if site == "resid_mid":
        return _in_place(module, act)
    return _after(module, _on_copy(act))


def _before(module: torch.nn.Module, act: Act) -> Any:
    def hook(_: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        new = act(_input(args, kwargs))
        if new is None:
            return None
        return ((new, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": new})

    return module.register_forward_pre_hook(hook, with_kwargs=True)


def _after(module: torch.nn.Module, act: Act) -> Any:
    def hook(_: Any, __: tuple, out: Any) -> Any:
        new = act(first_of(out))
        return None if new is None else with_first(out, new)

    return module.register_forward_hook(hook)


def _in_place(module: torch.nn.Module, act: Act) -> Any:
    """Before a module that reads the stream: the block adds to the very tensor that it hands to
    the module, so that another one would change what the module reads and not the stream."""
    act = _on_copy(act)

    def hook(_: Any, args: tuple, kwargs: dict) -> None:
        h = _input(args, kwargs)
        new = act(h)
        if new is not None:
            h.copy_(new)

    return module.register_forward_pre_hook(hook, with_kwargs=True)


def _on_copy(act: Act) -> Act:
    """The function on a copy: here tensors change in place later, by Falcon's block or an edit,
    and who looks may keep what it sees."""
    return lambda h: act(h.clone())


def _gate(act: Act, width: int) -> Act:
    """The function on the gate's half of a fused projection."""

    def halved(h: Tensor) -> Tensor | None:
        new = act(h[..., :width])
        return None if new is None else torch.cat([new, h[..., width:]], -1)

    return halved


def _input(args: tuple, kwargs: dict) -> Tensor:
    return args[0] if args else kwargs["hidden_states"]
