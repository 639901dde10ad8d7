"""A model of TransformerLens that the user brings."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import Any, NoReturn, final

import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.core.sites import NEURONS, ROUTER, hook_name, lens_hook, lens_width
from steerlab.core.tokens import has_bos
from steerlab.models.branching import Branch
from steerlab.models.checks import is_encoder
from steerlab.models.fingerprint import fingerprint_of, versions
from steerlab.models.model import Head, Model, Writes, as_it_is
from steerlab.models.positions import HookFn, Positions
from steerlab.models.routers import Router, routers


def _need_left_to_right(tl: Any, name: str) -> None:
    """Raise for an encoder of TransformerLens, or a bridge to one."""
    config: Any = getattr(getattr(tl, "original_model", None), "config", None)
    bridged = hasattr(config, "to_dict") and is_encoder(config.to_dict())
    if bridged or getattr(tl.cfg, "attention_dir", "causal") == "bidirectional":
        raise SteerlabError(
            f"{name} ({type(tl).__name__}) is an encoder: each of its tokens sees those after it; "
            "load it by its Hub id or folder, or as a model of transformers, for collect to read"
        )


@final
class LensModel(Model):
    """A `HookedTransformer` or `TransformerBridge` that the user brings: the same words, its own
    hooks and cache."""

    def __init__(self, tl: Any, *, name: str):
        _need_left_to_right(tl, name)
        tokenizer = tl.tokenizer
        if tokenizer is not None and not (tl.cfg.default_prepend_bos or has_bos(tokenizer)):
            tokenizer = copy.deepcopy(tokenizer)  # TransformerLens goes on with its own
            tokenizer.bos_token = None
        super().__init__(
            tl,
            tokenizer,
            name=name,
            revision=None,
            config=tl.cfg,
            n_layers=tl.cfg.n_layers,
            width=tl.cfg.d_model,
            fingerprint="",  # its parameters have other names and shapes than Hugging Face's
        )
        # The fingerprint of its own parameters, by which folders know it, and their state then.
        self._hashed: tuple[Any, str] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        raise SteerlabError(
            f"{self.name} lives in this process only; other processes need a Hub id or a folder"
        )

    @property
    def branches(self) -> bool:
        return False

    @property
    def pads(self) -> bool:
        return True

    @property
    def context(self) -> int:
        return int(self.config.n_ctx)

    def width_of(self, site: str) -> int:
        """By its `cfg`; raises for a site that its hook points do not have."""
        name, width = hook_name(site, 0), None
        if site == ROUTER:
            return self._router(self.routed[0]).experts
        # A bridge of experts has names for sites in their MLPs that mean something else.
        if name in self.hf.hook_dict and not (site in NEURONS and self._has_experts):
            width = lens_width(self.config, site)
        if width is None:
            raise SteerlabError(
                f"{self.name} has no {name}, or means something else by it, as a mixture of "
                f"experts does, so it has no site {site!r}; use resid_pre or resid_post"
            )
        return width

    def writes(self, site: str, layer: int) -> Writes | None:
        """What attention and MLP give is added as it is; their insides are read of no view of
        another's."""
        middle = hook_name("resid_mid", layer)
        if site == "attn_out" and middle in self.hf.hook_dict:
            return "resid_mid", as_it_is
        return ("resid_post", as_it_is) if site in ("attn_out", "mlp_out") else None

    @property
    def processing(self) -> str:
        """What was done to the weights: TransformerLens folds norms into what reads them, and
        centres what writes, unless it is told not to."""
        kind = str(getattr(self.config, "normalization_type", None) or "")
        return f"norms folded ({kind})" if kind.endswith("Pre") else super().processing

    @property
    def metadata(self) -> dict[str, Any]:
        now = versions(self.hf)
        if self._hashed is None or self._hashed[0] != now:
            self._hashed = now, fingerprint_of(self.hf)
        return super().metadata | {"parameters": self._hashed[1]}

    @property
    def _has_experts(self) -> bool:
        return bool(getattr(self.config, "num_experts", None))

    @property
    def routed(self) -> tuple[int, ...]:
        return tuple(layer for layer, each in enumerate(self._routers) if each is not None)

    def experts_per_token(self) -> int:
        return self._router(self.routed[0]).per_token

    def _router(self, layer: int) -> Router:
        router = self._routers[layer]
        if router is None:
            raise SteerlabError(f"{self.name} has no experts at layer {layer}, and no router")
        return router

    @cached_property
    def _routers(self) -> list[Router | None]:
        """The routers of the model of transformers that a bridge is to: what a hook of
        TransformerLens returns there changes the logits that are shown, and no routing."""
        inner = getattr(self.hf, "original_model", None)
        if inner is None or not self._has_experts:
            raise SteerlabError(
                f"{self.name} ({type(self.hf).__name__}) has no site 'router': only a "
                "TransformerBridge to a mixture of experts has one; load the model by name"
            )
        return routers(inner, self.hf.blocks)

    @property
    def blocks(self) -> torch.nn.ModuleList:
        blocks: torch.nn.ModuleList = self.hf.blocks
        return blocks

    @property
    def tl(self) -> Any:
        return self.hf

    @property
    def head(self) -> Head:
        return Head(self.hf.ln_final, self.hf.W_U.mT)

    def neuron_outputs(self, layer: int) -> Float[Tensor, "width neuron"]:
        raise SteerlabError(
            f"tracing reads the weights of {self.name} itself; load it by name, not in another's "
            "view"
        )

    def _run(
        self, ids: Tensor, mask: Tensor, positions: Tensor, past: Any, *, last: int, cached: bool
    ) -> tuple[Tensor, Any]:
        options: dict[str, Any] = {"attention_mask": mask.long(), "return_type": "logits"}
        bridge = hasattr(self.hf, "original_model")
        if cached and bridge:
            options |= {
                "use_cache": True,
                "past_key_values": past,
                "return_type": "logits_and_cache",
            }
        elif cached:
            past = self._new_cache(len(ids)) if past is None else past
            options |= {"attention_mask": mask[:, -ids.shape[1] :].long(), "past_kv_cache": past}
        logits = self.hf(ids, **options)
        if cached and bridge:
            logits, past = logits
        return logits[:, -last:], past

    def _joining(self, branch: Branch, positions: Positions) -> NoReturn:
        raise SteerlabError(f"the rows of {self.name} cannot join on the way through its blocks")

    def _roomy(self, past: Any, room: int, branch: Branch | None) -> Any:
        return past  # its own cache grows by itself

    def _new_cache(self, rows: int) -> Any:
        from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache

        return TransformerLensKeyValueCache.init_cache(self.config, self.device, rows)

    def _body(self, ids: Tensor, mask: Tensor) -> None:
        self.forward(ids, mask)

    @contextmanager
    def _attached(self, changes: Sequence[tuple[str, int, HookFn]]) -> Iterator[None]:
        hooks = []
        routed = []
        for site, layer, change in changes:
            self.need_layer(layer)
            self.width_of(site)
            if site == ROUTER:
                routed.append((self._router(layer), self._placed(change)))
            else:
                hooks.append((hook_name(site, layer), lens_hook(site, self._placed(change))))
        with ExitStack() as leaving:
            before = self.hf.register_forward_pre_hook(self._watch, with_kwargs=True)
            leaving.callback(before.remove)
            after = self.hf.register_forward_hook(self._forget, always_call=True)
            leaving.callback(after.remove)
            for router, act in routed:
                leaving.callback(router.attach(act).remove)
            with self.hf.hooks(fwd_hooks=hooks):
                yield

    def _placed(self, change: HookFn) -> Callable[[Tensor], Tensor | None]:
        def act(h: Tensor) -> Tensor | None:
            if self._where is None:
                raise SteerlabError(
                    f"{self.name}'s own generate does not say which tokens it runs, so an edit "
                    "cannot tell BOS and padding; use steerlab's generate, or edit.hooks(model)"
                )
            if h.ndim == 3:
                return change(h, self._where)
            # A router has the positions of all rows in a row.
            new = change(h.unflatten(0, self._where.text.shape), self._where)
            return None if new is None else new.flatten(0, 1)

        return act
