"""Sites of a model, the names that TransformerLens gives their hook points, and functions that go
there."""

import re
from collections.abc import Callable
from typing import Any, Literal, get_args

from einops import rearrange
from torch import Tensor

from steerlab.core.errors import SteerlabError

Site = Literal[
    "resid_pre",
    "attn_z",
    "attn_out",
    "resid_mid",
    "router",
    "mlp_pre",
    "mlp_post",
    "mlp_out",
    "resid_post",
]

ORDER: tuple[str, ...] = get_args(Site)  # in which a block computes them
# The logits of a router, one for each expert. Only a mixture of experts has them, and it has no
# neurons that every token meets; all other sites hold activations.
ROUTER = "router"
SITES: tuple[str, ...] = tuple(site for site in ORDER if site != ROUTER)
NEURONS = ("mlp_pre", "mlp_post")  # before and after an MLP's non-linearity

_HOOKS = {site: f"hook_{site}" for site in ORDER}
_HOOKS |= {"attn_z": "attn.hook_z", "mlp_pre": "mlp.hook_pre", "mlp_post": "mlp.hook_post"}
_HOOKS |= {ROUTER: "mlp.gate.hook_out"}
_SITES = {hook: site for site, hook in _HOOKS.items()}


def need_site(site: str) -> None:
    """Raise for a name that is no site."""
    if site not in ORDER:
        raise SteerlabError(f"there is no site {site!r}; the sites are {', '.join(ORDER)}")


def hook_name(site: str, layer: int) -> str:
    """The TransformerLens name of a site at a layer, such as `blocks.5.hook_resid_post`.

    Raises `SteerlabError` for an unknown site.
    """
    need_site(site)
    return f"blocks.{layer}.{_HOOKS[site]}"


def site_of(hook: str) -> tuple[str, int] | None:
    """The site and layer of a TransformerLens hook name; None for a name of no site."""
    parts = re.fullmatch(r"blocks\.(\d+)\.(.+)", hook)
    if parts is None or parts[2] not in _SITES:
        return None
    return _SITES[parts[2]], int(parts[1])


def lens_width(cfg: Any, site: str) -> int | None:
    """How wide a site is by the `cfg` of a TransformerLens model; None where that does not say."""
    need_site(site)
    if site in NEURONS:
        if getattr(cfg, "num_experts", None):
            raise SteerlabError(
                "the model is a mixture of experts, which has no sites mlp_pre and mlp_post"
            )
        return getattr(cfg, "d_mlp", None)
    if site == ROUTER:
        return getattr(cfg, "num_experts", None)
    return int(cfg.n_heads * cfg.d_head) if site == "attn_z" else int(cfg.d_model)


def lens_hook(site: str, change: Callable[[Tensor], Tensor | None]) -> Callable:
    """A function of activations [row pos width] as a hook of TransformerLens at a site.

    Two of its hook points are not like the others. `attn.hook_z` gives each head an axis of its
    own; ours lie side by side. And what a hook returns at the `hook_resid_mid` of a bridge reaches
    the MLP but not the residual stream, so that the tensor, which is both, is changed in place: in
    a HookedTransformer that comes to the same.
    """

    def flat(h: Tensor, hook: Any = None) -> Tensor | None:
        return change(h)

    def of_heads(h: Tensor, hook: Any = None) -> Tensor | None:
        new = change(rearrange(h, "row pos head dim -> row pos (head dim)"))
        if new is None:
            return None
        return rearrange(new, "row pos (head dim) -> row pos head dim", head=h.shape[2])

    def in_place(h: Tensor, hook: Any = None) -> Tensor | None:
        new = change(h.clone())  # a copy, so that what somebody keeps of it stays what it was
        return None if new is None else h.copy_(new)

    return {"attn_z": of_heads, "resid_mid": in_place}.get(site, flat)
