"""A Hugging Face model whose activations can be read and changed, and its TransformerLens twin."""

import copy
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.models.anatomy import Anatomy
from steerlab.models.branching import Branch, joining
from steerlab.models.hooks import attach
from steerlab.models.model import Head, Model, Writes
from steerlab.models.positions import HookFn, Positions
from steerlab.models.stream import twin


@final
class HuggingFaceModel(Model):
    """A causal language model of transformers."""

    branches: ClassVar[bool] = True

    def __init__(self, hf: Any, tokenizer: Any, *, name: str, revision: str | None = None):
        # The language model of one that also sees has a configuration of its own.
        text = getattr(hf.config, "get_text_config", None)
        config = hf.config if text is None else text()
        super().__init__(
            hf,
            tokenizer,
            name=name,
            revision=revision,
            config=config,
            n_layers=config.num_hidden_layers,
            width=config.hidden_size,
            fingerprint=fingerprint_of(hf),
        )
        self.anatomy = Anatomy(hf, self.n_layers)
        self._tl: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process loads the model itself."""
        from steerlab.models.loading import reload

        source = str(Path(self.name).resolve()) if Path(self.name).is_dir() else self.name
        return reload, (source, self.revision, self.dtype, self.device.type, self.fingerprint)

    @property
    def blocks(self) -> torch.nn.ModuleList:
        return self.anatomy.blocks

    @property
    def context(self) -> int:
        return int(getattr(self.config, "max_position_embeddings", 0) or 2**31)

    @property
    def tl(self) -> Any:
        """A `TransformerBridge`.

        The bridge rewires the module that it is given, so it gets a structural copy that shares
        every parameter; without hooks, since an edit that is attached just now would stay on it.
        """
        if self._tl is None:
            from transformer_lens.model_bridge import TransformerBridge

            tokenizer = copy.deepcopy(self.tokenizer)  # it would get its EOS as BOS if it has none
            self._tl = TransformerBridge.boot_transformers(
                str(self.name),
                hf_model=twin(self.hf),
                tokenizer=tokenizer,
                device=str(self.device),
                dtype=self.dtype,
            )
        return self._tl

    @property
    def head(self) -> Head:
        return self.anatomy.head

    def neuron_outputs(self, layer: int) -> Float[Tensor, "width neuron"]:
        return self.anatomy.neuron_outputs(layer)

    def width_of(self, site: str) -> int:
        return self.anatomy.width_of(site, self.width)

    def writes(self, site: str, layer: int) -> Writes | None:
        return self.anatomy.writes(site, layer, self.dtype)

    @contextmanager
    def attached(self, changes: Sequence[tuple[str, int, HookFn]]) -> Iterator[None]:
        handles: list[Any] = []
        self.attachments += 1
        try:
            base = self.hf.base_model
            handles.append(base.register_forward_pre_hook(self._watch, with_kwargs=True))
            handles.append(base.register_forward_hook(self._forget, always_call=True))
            for site, layer, change in changes:
                self.need_layer(layer)
                handles.append(attach(self.anatomy, layer, site, self._placed(change)))
            yield
        finally:
            self.attachments -= 1
            for handle in handles:
                handle.remove()

    def _placed(self, change: HookFn) -> Callable[[Tensor], Tensor | None]:
        def act(h: Tensor) -> Tensor | None:
            if self._where is None:
                raise SteerlabError(
                    f"a block of {self.name} ran by itself, so an edit cannot know BOS; run the "
                    "model"
                )
            if h.ndim > 2:
                return change(h, self._where)
            # OPT's MLP and some experts have the positions of all rows in a row.
            new = change(h.unflatten(0, self._where.text.shape), self._where)
            return None if new is None else new.flatten(0, 1)

        return act

    def body(self, ids: Int[Tensor, "row pos"], mask: Bool[Tensor, "row pos"]) -> None:
        # Without the unembedding, which takes a third of the time of a small model's pass.
        with self._pass(ids, mask) as positions:
            self.hf.base_model(
                input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False
            )

    def _run(
        self, ids: Tensor, mask: Tensor, positions: Tensor, past: Any, *, last: bool, cached: bool
    ) -> tuple[Tensor, Any]:
        out = self.hf(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=past,
            use_cache=cached,
            logits_to_keep=1 if last else 0,
        )
        return out.logits, out.past_key_values

    def _joining(self, branch: Branch, positions: Positions) -> AbstractContextManager[None]:
        return joining(branch, self.blocks, positions)


@torch.no_grad()
def fingerprint_of(module: torch.nn.Module) -> str:
    """16 hex digits of the shapes and of 256 values of each parameter, rounded to bfloat16."""
    digest = hashlib.sha256()
    for name, value in module.named_parameters():
        flat = value.detach().flatten()
        few = flat[:: max(1, len(flat) // 256)][:256].to(torch.bfloat16).cpu().view(torch.int16)
        digest.update(json.dumps([name, list(value.shape)]).encode() + few.numpy().tobytes())
    return digest.hexdigest()[:16]
