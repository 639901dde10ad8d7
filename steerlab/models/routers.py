"""Where a mixture of experts decides which experts a token meets: its routers, whose logits are the
site `router`.

In transformers a router multiplies, takes the softmax and the top k, all in one module, which gives
the logits beside what came of them. A hook that changed the logits it gives would change nothing
else: so the module runs again, with the new logits in the place of its own.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from steerlab.core.equality import same
from steerlab.core.errors import SteerlabError

_TOKENS = 512  # random ones, on which it is tried whether a router takes the top k of its logits
_ROUTES = "router_logits"  # what transformers calls them among what a model can record


@dataclass(frozen=True)
class Router:
    """A router of a block.

    Args:
        module: gives the logits [token expert], alone or among other things.
        index: where they are among these; None where they are alone.
        call: which of the calls of torch in its forward pass gives them.
        experts: how many there are.
        per_token: how many of them a token meets.
    """

    module: torch.nn.Module
    index: int | None
    call: int
    experts: int
    per_token: int

    def attach(self, act: Callable[[Tensor], Tensor | None]) -> Any:
        """Let a function see the logits before the softmax and the top k, and put what it returns,
        if anything, in their place."""

        def hook(_: Any, args: tuple, kwargs: dict, out: Any) -> Any:
            new = act(_logits(out, self.index))
            return None if new is None else self._routed(new, args, kwargs)

        return self.module.register_forward_hook(hook, with_kwargs=True)

    def _routed(self, logits: Tensor, args: tuple, kwargs: dict) -> Any:
        """What the router makes of other logits."""
        with _Calls(put=(self.call, logits)):
            out = self.module.forward(*args, **kwargs)
        if not same(_logits(out, self.index), logits):
            raise SteerlabError(
                f"{type(self.module).__name__} did not take other logits in the place of its own, "
                "so that nothing can be routed; leave the site 'router' alone"
            )
        return out


def routers(hf: Any, blocks: torch.nn.ModuleList) -> list[Router | None]:
    """The router of each block; None for a block without one.

    Raises for a model of experts whose routers steerlab cannot read: they are those that
    transformers records as `router_logits`, and the experts of a token are the top k of the logits.
    """
    kinds = dict(_kinds(hf))
    found: list[Router | None] = []
    for block in blocks:
        here = [module for module in block.modules() if type(module) in kinds]
        if len(here) > 1:
            raise SteerlabError(
                f"{type(block).__name__} has {len(here)} routers, of which steerlab reads one "
                "only; use resid_pre or resid_post"
            )
        found.append(_router(here[0], kinds[type(here[0])]) if here else None)
    if not any(found):
        raise SteerlabError(
            f"{type(hf).__name__} is no mixture of experts whose routers transformers knows, so it "
            "has no site 'router'; use another site"
        )
    return found


class _Calls(TorchFunctionMode):
    """Counts the calls of torch: keeps the tensors that they give, or puts one in the place of
    another."""

    def __init__(self, put: tuple[int, Tensor] | None = None):
        super().__init__()
        self.results: list[Any] = []
        self.count = 0
        self.put = put

    def __torch_function__(
        self, function: Any, _: Any, args: tuple = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        number, self.count = self.count, self.count + 1
        if self.put is None:
            self.results.append(result)
        elif number == self.put[0]:
            return self.put[1].reshape(result.shape).to(result.dtype)
        return result


def _kinds(hf: Any) -> Iterator[tuple[type, int]]:
    """The classes of routers that transformers records, and where in what they give the logits
    are."""
    for module in hf.modules():
        recorded = getattr(module, "_can_record_outputs", None)
        told = recorded.get(_ROUTES) if isinstance(recorded, dict) else None
        for each in told if isinstance(told, list) else [told]:
            kind = getattr(each, "target_class", each)
            if isinstance(kind, type):
                yield kind, int(getattr(each, "index", 0))


@torch.inference_mode()
def _router(module: Any, index: int) -> Router:
    """A router by what it does with random tokens; one that does something else raises."""
    weight = max(module.parameters(), key=lambda each: each.ndim, default=None)
    width = 0 if weight is None or weight.ndim < 2 else weight.shape[-1]
    random = torch.Generator().manual_seed(0)
    tokens = torch.randn(_TOKENS, width, generator=random)
    tokens = tokens if weight is None else tokens.to(weight)
    try:
        with _Calls() as calls:
            out = module.forward(tokens)
    except Exception as error:  # one that takes other things than tokens
        raise _unread(module, "it takes other things than the tokens alone") from error
    place = index if isinstance(out, tuple) else None
    logits = _logits(out, place)
    given = [number for number, each in enumerate(calls.results) if _is(each, logits)]
    chosen = [each for each in out if _chooses(each)] if place is not None else []
    if not given or len(chosen) != 1:
        raise _unread(module, "it gives no logits and numbers of experts")
    experts, per_token = logits.shape[-1], chosen[0].shape[-1]
    best = logits.topk(per_token, dim=-1).indices
    if not torch.equal(best.sort(-1).values, chosen[0].reshape(best.shape).sort(-1).values):
        raise _unread(module, "the experts of a token are not those of the largest logits")
    return Router(module, place, given[0], experts, per_token)


def _unread(module: Any, why: str) -> SteerlabError:
    return SteerlabError(
        f"{type(module).__name__} routes in a way that steerlab does not read: {why}; use "
        "resid_pre or resid_post"
    )


def _logits(out: Any, index: int | None) -> Tensor:
    logits: Tensor = out if index is None else out[index]
    return logits


def _is(result: Any, logits: Tensor) -> bool:
    """Whether the result of a call holds the logits, in whatever shape."""
    if not isinstance(result, Tensor) or result.numel() != logits.numel():
        return False
    return torch.equal(result.flatten().to(logits.dtype), logits.flatten())


def _chooses(given: Any) -> bool:
    """Whether a tensor holds the numbers of experts."""
    return isinstance(given, Tensor) and given.ndim == 2 and given.dtype == torch.int64
