"""A Hugging Face model whose residual stream can be read and changed, and its TransformerLens
twin."""

import copy
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.core.sites import hook_name
from steerlab.models.anatomy import attach, blocks, projections
from steerlab.models.branching import Branch, joining
from steerlab.models.kv_cache import length
from steerlab.models.positions import HookFn, Positions, positions_of


class Model:
    """A causal language model with its tokenizer, whose residual stream can be read and changed
    at any layer."""

    hf: Any  # a transformers model: torch types each of its attributes as a tensor or a module
    branches = True  # whether rows can join on the way through `forward`
    attachments = 0  # how many `attached` are open
    # The positions of the pass in flight, and None between passes. A module's hook gets nothing of
    # ours but the module and its input, so it reads them here. `forward` and `body` put them here
    # before their pass; for one that somebody else begins, as `hf.generate` under an edit does,
    # `_watch` does so.
    _where: Positions | None = None

    def __init__(self, hf: Any, tokenizer: Any, *, name: str, revision: str | None = None):
        self.hf, self.tokenizer, self.name, self.revision = hf.eval(), tokenizer, name, revision
        self.config = (
            hf.config.get_text_config() if hasattr(hf.config, "get_text_config") else hf.config
        )
        self.n_layers: int = self.config.num_hidden_layers
        self.width: int = self.config.hidden_size
        self.blocks = blocks(hf, self.n_layers)
        self._tl: Any = None
        self.fingerprint = _fingerprint(hf)

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process loads the model itself."""
        from steerlab.models.loading import reload

        place = str(Path(self.name).resolve()) if Path(self.name).is_dir() else self.name
        return reload, (place, self.revision, self.dtype, self.device.type, self.fingerprint)

    @property
    def device(self) -> torch.device:
        return next(self.hf.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.hf.parameters()).dtype

    @property
    def context(self) -> int:
        """The longest sequence that the model was made for."""
        return int(getattr(self.config, "max_position_embeddings", 0) or 2**31)

    @property
    def vocabulary(self) -> int:
        """How many logits there are."""
        return int(getattr(self.config, "vocab_size", 0) or self.config.d_vocab)

    @property
    def bytes(self) -> int:
        """Memory of the weights that lie on the model's device."""
        return sum(
            t.numel() * t.element_size() for t in self.hf.parameters() if t.device == self.device
        )

    @property
    def ends(self) -> set[int]:
        """The tokens that end a text: some chat models have several."""
        told = getattr(getattr(self.hf, "generation_config", None), "eos_token_id", None)
        listed = told if isinstance(told, list) else [told]
        return {token for token in (*listed, self.tokenizer.eos_token_id) if token is not None}

    @property
    def about(self) -> dict[str, Any]:
        """What an artefact says of the model that it was made with."""
        about = {"name": self.name, "revision": self.revision, "fingerprint": self.fingerprint}
        return about | {
            "dtype": str(self.dtype).removeprefix("torch."),
            "processing": "raw weights",
        }

    @property
    def tl(self) -> Any:
        """The same weights as a TransformerLens `TransformerBridge`: its hook names, caches and
        tools.

        The bridge rewires the module that it is given, so it gets a structural copy that shares
        every parameter.
        """
        if self._tl is None:
            from transformer_lens.model_bridge import TransformerBridge

            shared = {id(t): t for t in (*self.hf.parameters(), *self.hf.buffers())}
            twin = copy.deepcopy(self.hf, shared)
            for module in (
                twin.modules()
            ):  # an edit that is attached just now would stay on the copy for good
                module._forward_hooks.clear()
                module._forward_pre_hooks.clear()
            tokenizer = copy.deepcopy(self.tokenizer)  # it would get its EOS as BOS if it has none
            self._tl = TransformerBridge.boot_transformers(
                str(self.name),
                hf_model=twin,
                tokenizer=tokenizer,
                device=str(self.device),
                dtype=self.dtype,
            )
        return self._tl

    def forward(
        self,
        ids: Int[Tensor, "row pos"],
        mask: Bool[Tensor, "row total"],
        *,
        past: Any = None,
        last: bool = False,
        room: int | None = None,
        branch: Branch | None = None,
        positions: Positions | None = None,
    ) -> tuple[Float[Tensor, "out_row out vocab"], Any]:
        """Logits, and a cache if one is asked for. `engine.forward` runs many rows by it.

        Args:
            ids: tokens; behind a cache, only the new ones.
            mask: true where there is no padding, the cache's positions included.
            past: the cache that an earlier pass gave.
            last: whether to keep the logits of the last position alone.
            room: how many more positions the cache shall have room for; None for no cache.
            branch: rows that join on the way, of which the ids are the prompts: logits and cache
                are those of the rows, in the branch's order.
            positions: what attached functions see, such as which row each one is; by default the
                rows are taken for the whole batch. With a branch they follow from it.
        """
        with self._pass(ids, mask, past=past, branch=branch, positions=positions) as position_ids:
            cached = past is not None or room is not None
            logits, past = self._run(ids, mask, position_ids, past, last=last, cached=cached)
        if room is not None and self.branches:
            from steerlab.models.kv_cache import preallocate  # imports transformers

            rows = (
                None if branch is None else [branch.final(block) for block in range(self.n_layers)]
            )
            past = preallocate(past, room, rows)
        return logits, past

    def _run(
        self, ids: Tensor, mask: Tensor, positions: Tensor, past: Any, *, last: bool, cached: bool
    ) -> tuple[Tensor, Any]:
        """One pass, with a cache to go on from if `cached`."""
        out = self.hf(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=past,
            use_cache=cached,
            logits_to_keep=1 if last else 0,
        )
        return out.logits, out.past_key_values

    def body(self, ids: Int[Tensor, "row pos"], mask: Bool[Tensor, "row pos"]) -> None:
        """Run the blocks for the sake of what is attached to them, without the unembedding."""
        with self._pass(ids, mask) as positions:
            self.hf.base_model(
                input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False
            )

    @contextmanager
    def _pass(
        self,
        ids: Tensor,
        mask: Tensor,
        *,
        past: Any = None,
        branch: Branch | None = None,
        positions: Positions | None = None,
    ) -> Iterator[Tensor]:
        """Put the positions of a pass where hooks find them, and let rows branch off; gives the
        position ids."""
        if self.attachments or branch:
            if positions is None or branch:
                # A branch's pass begins with prompts, which are nobody's rows: no edit is theirs.
                rows = torch.full((len(ids),), -1, device=ids.device) if branch else None
                positions = self._positions(ids, mask, length(past), rows)
            self._where = positions
        try:
            with joining(branch, self.blocks, positions) if branch else nullcontext():
                yield (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        finally:
            self._where = None

    def _positions(
        self, ids: Tensor, mask: Tensor | None, past: int, rows: Tensor | None = None
    ) -> Positions:
        return positions_of(ids, mask, past=past, bos=self.tokenizer.bos_token_id, rows=rows)

    @contextmanager
    def attached(self, changes: Sequence[tuple[str, int, HookFn]]) -> Iterator[None]:
        """Attach functions of (h [row pos width], Positions) to sites; all or none, and gone
        afterwards whatever happens.

        A function that returns None only looks. They see every forward pass of the Hugging Face
        model, also those of its own `generate`.
        """
        handles: list[Any] = []
        self.attachments += 1
        try:
            base = self.hf.base_model
            handles.append(base.register_forward_pre_hook(self._watch, with_kwargs=True))
            handles.append(base.register_forward_hook(self._forget, always_call=True))
            for site, layer, change in changes:
                self.need_layer(layer)
                handles.append(attach(self.blocks[layer], site, self._placed(change)))
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
            new = change(
                h.unflatten(0, self._where.text.shape), self._where
            )  # OPT's MLP sees its positions in a row
            return None if new is None else new.flatten(0, 1)

        return act

    def width_of(self, site: str) -> int:
        """How wide activations are at a site: d_model in the residual stream, d_mlp inside an
        MLP."""
        hook_name(site, 0)
        if not site.startswith("mlp_"):
            return self.width
        widths = sorted({projections(block).width for block in self.blocks})
        if len(widths) > 1:
            raise SteerlabError(
                f"the MLPs of {self.name} have different widths {widths}, so {site} has none of "
                "its own"
            )
        return widths[0]

    def need_layer(self, layer: int) -> None:
        if not 0 <= layer < self.n_layers:
            raise SteerlabError(
                f"{self.name} has layers 0 to {self.n_layers - 1}; layer {layer} was asked for"
            )

    def _watch(self, _: Any, args: tuple, kwargs: dict) -> None:
        """Learn the positions of a pass that somebody else began."""
        if self._where is not None:  # ours, or another `attached` has seen the pass begin
            return
        ids = kwargs.get("input_ids", kwargs.get("input", args[0] if args else None))
        if not isinstance(ids, Tensor) or ids.is_floating_point():
            raise SteerlabError(
                "an edit needs token ids, to know BOS and padding; pass input_ids, not embeddings"
            )
        past = length(kwargs.get("past_key_values") or kwargs.get("past_kv_cache"))
        self._where = self._positions(ids, kwargs.get("attention_mask"), past)

    def _forget(self, *_: Any) -> None:
        """A pass is over, by an error too: what was learnt of it says nothing of the next."""
        self._where = None


@torch.no_grad()
def _fingerprint(module: torch.nn.Module) -> str:
    """16 hex digits of the shapes and of 256 values of each parameter, rounded to bfloat16."""
    digest = hashlib.sha256()
    for name, value in module.named_parameters():
        flat = value.detach().flatten()
        few = flat[:: max(1, len(flat) // 256)][:256].to(torch.bfloat16).cpu().view(torch.int16)
        digest.update(json.dumps([name, list(value.shape)]).encode() + few.numpy().tobytes())
    return digest.hexdigest()[:16]
