"""A model of TransformerLens that the user brings."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from jaxtyping import Bool, Int
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.core.sites import hook_name
from steerlab.core.tokens import has_bos
from steerlab.models.huggingface import Model
from steerlab.models.positions import HookFn


class LensModel(Model):
    """A `HookedTransformer` or `TransformerBridge` that the user brings: the same words, its own
    hooks and cache."""

    branches = False

    def __init__(self, tl: Any, *, name: str):
        self.tokenizer, self.name, self.revision = tl.tokenizer, name, None
        self.config, self.n_layers, self.width = tl.cfg, tl.cfg.n_layers, tl.cfg.d_model
        self.hf = self._tl = tl.eval()
        if self.tokenizer is not None and not (
            tl.cfg.default_prepend_bos or has_bos(self.tokenizer)
        ):
            self.tokenizer = copy.deepcopy(self.tokenizer)  # TransformerLens goes on with its own
            self.tokenizer.bos_token = None
        self.fingerprint = (
            ""  # its parameters have other names and shapes, so they cannot be compared
        )

    def __reduce__(self) -> tuple[Any, ...]:
        raise SteerlabError(
            f"{self.name} lives in this process only; other processes need a Hub id or a folder"
        )

    @property
    def context(self) -> int:
        return int(self.config.n_ctx)

    def width_of(self, site: str) -> int:
        if not site.startswith("mlp_"):
            return super().width_of(site)
        name, inner = hook_name(site, 0), getattr(self.config, "d_mlp", None)
        if (
            getattr(self.config, "num_experts", None)
            or inner is None
            or name not in self._tl.hook_dict
        ):
            raise SteerlabError(
                f"{self.name} has no {name}, or means something else by it, as a mixture of "
                "experts does, so it has no "
                f"site {site!r}; use resid_pre or resid_post"
            )
        return int(inner)

    def _run(
        self, ids: Tensor, mask: Tensor, positions: Tensor, past: Any, *, last: bool, cached: bool
    ) -> tuple[Tensor, Any]:
        told: dict[str, Any] = {"attention_mask": mask.long(), "return_type": "logits"}
        bridge = hasattr(self._tl, "original_model")
        if cached and bridge:
            told |= {"use_cache": True, "past_key_values": past, "return_type": "logits_and_cache"}
        elif cached:
            past = self._new_cache(len(ids)) if past is None else past
            told |= {"attention_mask": mask[:, -ids.shape[1] :].long(), "past_kv_cache": past}
        logits = self._tl(ids, **told)
        if cached and bridge:
            logits, past = logits
        return (logits[:, -1:] if last else logits), past

    def _new_cache(self, rows: int) -> Any:
        from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache

        return TransformerLensKeyValueCache.init_cache(self.config, self.device, rows)

    def body(self, ids: Int[Tensor, "row pos"], mask: Bool[Tensor, "row pos"]) -> None:
        self.forward(ids, mask)

    @contextmanager
    def attached(self, changes: Sequence[tuple[str, int, HookFn]]) -> Iterator[None]:
        hooks = []
        for site, layer, change in changes:
            self.need_layer(layer)
            self.width_of(site)
            hooks.append((hook_name(site, layer), self._hook(change)))
        before = self._tl.register_forward_pre_hook(self._watch, with_kwargs=True)
        after = self._tl.register_forward_hook(self._forget, always_call=True)
        self.attachments += 1
        try:
            with self._tl.hooks(fwd_hooks=hooks):
                yield
        finally:
            self.attachments -= 1
            before.remove()
            after.remove()

    def _hook(self, change: HookFn) -> Callable:
        def hook(h: Tensor, hook: Any) -> Tensor | None:
            if self._where is None:
                raise SteerlabError(
                    f"{self.name}'s own generate does not say which tokens it runs, so an edit "
                    "cannot tell BOS and "
                    "padding; use steerlab's generate, or edit.hooks(model)"
                )
            return change(h, self._where)

        return hook
