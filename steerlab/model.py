"""A language model from two sides that share one set of weights: Hugging Face for bulk, TransformerLens to read."""

import copy
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError
from torch import Tensor

from steerlab.branching import Branch, joining
from steerlab.terms import SITES, SteerlabError, hook_name

PACKAGED = Path(__file__).parent / "data" / "polyglot"


@dataclass
class Where:
    """Which positions of a forward pass are which: what an edit needs to know beside the activations.

    `text` [row pos]: neither padding nor BOS. `generated` [row pos]: after the prompt. `rows`: the row of the whole
    batch that each row of this pass is; -1 for a prompt that rows are still to branch from. `step`: a pass of decoding,
    in which every position is text and generated.
    """

    text: Bool[Tensor, "row pos"]
    generated: Bool[Tensor, "row pos"]
    rows: Int[Tensor, " row"]
    step: bool = False


Change = Callable[[Tensor, Where], Tensor | None]


class Model:
    """A causal language model with its tokenizer, whose residual stream can be read and changed at any layer."""

    hf: Any  # a transformers model: torch types each of its attributes as a tensor or a module
    branches = True  # whether rows can join on the way through `forward`

    def __init__(self, hf: Any, tokenizer: Any, *, name: str, revision: str | None = None):
        self.hf, self.tokenizer, self.name, self.revision = hf.eval(), tokenizer, name, revision
        self.config = hf.config.get_text_config() if hasattr(hf.config, "get_text_config") else hf.config
        self.n_layers: int = self.config.num_hidden_layers
        self.width: int = self.config.hidden_size
        self.blocks = _blocks(hf, self.n_layers)
        self.rows: Tensor | None = None  # set by decoding: which row each of the batch is
        self.live: Tensor | None = None  # set by decoding, while some rows of the batch have ended
        self.attachments = 0  # how many `attached` are open
        self._where: Where | None = None  # of the pass in flight
        self._ours = False  # whether that pass is one of `forward` or `body`
        self._tl: Any = None
        self.fingerprint = _fingerprint(hf)

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
        """Memory of the weights."""
        return sum(t.numel() * t.element_size() for t in self.hf.parameters())

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
        return about | {"dtype": str(self.dtype).removeprefix("torch."), "processing": "raw weights"}

    @property
    def tl(self) -> Any:
        """The same weights as a TransformerLens `TransformerBridge`: its hook names, caches and tools.

        The bridge rewires the module that it is given, so it gets a structural copy that shares every parameter.
        """
        if self._tl is None:
            from transformer_lens.model_bridge import TransformerBridge

            shared = {id(t): t for t in (*self.hf.parameters(), *self.hf.buffers())}
            twin = copy.deepcopy(self.hf, shared)
            for module in twin.modules():  # an edit that is attached just now would stay on the copy for good
                module._forward_hooks.clear()
                module._forward_pre_hooks.clear()
            self._tl = TransformerBridge.boot_transformers(
                str(self.name), hf_model=twin, tokenizer=self.tokenizer, device=str(self.device), dtype=self.dtype
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
    ) -> tuple[Float[Tensor, "out_row out vocab"], Any]:
        """Logits, of the last position only with `last`; and a cache with room for `room` more positions, if asked for.

        With `branch` the ids are prompts, and its rows join them on the way: logits and cache are those of the rows.
        """
        with self._pass(ids, mask, past=past, branch=branch) as positions:
            out = self.hf(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=past,
                use_cache=past is not None or room is not None,
                logits_to_keep=1 if last else 0,
            )
        past = out.past_key_values
        if room is not None:
            from steerlab.cache import settle  # imports transformers

            rows = None if branch is None else [branch.final(block) for block in range(self.n_layers)]
            past = settle(past, room, rows)
        return out.logits, past

    def body(self, ids: Int[Tensor, "row pos"], mask: Bool[Tensor, "row pos"]) -> None:
        """Run the blocks for the sake of what is attached to them, without the unembedding."""
        with self._pass(ids, mask) as positions:
            self.hf.base_model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False)

    @contextmanager
    def _pass(self, ids: Tensor, mask: Tensor, *, past: Any = None, branch: Branch | None = None) -> Iterator[Tensor]:
        """Know the positions of a pass and let rows branch off; gives the position ids."""
        length = _length(past)
        if self.attachments:
            self._where = self._positions(ids, mask, length)
        self._ours = True
        try:
            with joining(branch, self.blocks, self._where) if branch else nullcontext():
                yield (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        finally:
            self._ours, self._where = False, None

    def _positions(self, ids: Tensor, mask: Tensor | None, past: int) -> Where:
        if past and self.rows is not None and ids.shape[1] == 1:
            told = torch.ones_like(ids, dtype=torch.bool)
            if self.live is None:
                return Where(told, told, self.rows, step=True)
            return Where(self.live[:, None], told, self.rows)
        return where(ids, mask, past=past, bos=self.tokenizer.bos_token_id, rows=self.rows)

    @contextmanager
    def attached(self, changes: Sequence[tuple[str, int, Change]]) -> Iterator[None]:
        """Attach functions of (h [row pos width], Where) to sites; all or none, and gone afterwards whatever happens.

        A function that returns None only looks. They see every forward pass of the Hugging Face model, also those of
        its own `generate`.
        """
        handles: list[Any] = []
        self.attachments += 1
        try:
            handles.append(self.hf.base_model.register_forward_pre_hook(self._watch, with_kwargs=True))
            for site, layer, change in changes:
                self.need_layer(layer)
                handles.append(_attach(self.blocks[layer], site, lambda h, change=change: change(h, self._where)))
            yield
        finally:
            self.attachments -= 1
            for handle in handles:
                handle.remove()

    def need_layer(self, layer: int) -> None:
        if not 0 <= layer < self.n_layers:
            raise SteerlabError(f"{self.name} has layers 0 to {self.n_layers - 1}; layer {layer} was asked for")

    def _watch(self, _: Any, args: tuple, kwargs: dict) -> None:
        """Learn the positions of a pass that somebody else began."""
        if self._ours:
            return
        ids = kwargs.get("input_ids", kwargs.get("input", args[0] if args else None))
        if not isinstance(ids, Tensor) or ids.is_floating_point():
            raise SteerlabError("an edit needs token ids, to know BOS and padding; pass input_ids, not embeddings")
        past = _length(kwargs.get("past_key_values") or kwargs.get("past_kv_cache"))
        self._where = self._positions(ids, kwargs.get("attention_mask"), past)


class LensModel(Model):
    """A `HookedTransformer` or `TransformerBridge` that the user brings: the same words, its own hooks and cache."""

    branches = False

    def __init__(self, tl: Any, *, name: str):
        self.tokenizer, self.name, self.revision = tl.tokenizer, name, None
        self.config, self.n_layers, self.width = tl.cfg, tl.cfg.n_layers, tl.cfg.d_model
        self.hf = self._tl = tl.eval()
        self.rows, self.live, self.attachments = None, None, 0
        self._where, self._ours = None, False
        self.fingerprint = ""  # its parameters have other names and shapes, so they cannot be compared

    @property
    def context(self) -> int:
        return int(self.config.n_ctx)

    def forward(
        self,
        ids: Int[Tensor, "row pos"],
        mask: Bool[Tensor, "row total"],
        *,
        past: Any = None,
        last: bool = False,
        room: int | None = None,
        branch: Branch | None = None,
    ) -> tuple[Float[Tensor, "out_row out vocab"], Any]:
        told: dict[str, Any] = {"attention_mask": mask.long(), "return_type": "logits"}
        bridge = hasattr(self._tl, "original_model")
        if past is not None or room is not None:
            if bridge:
                told |= {"use_cache": True, "past_key_values": past, "return_type": "logits_and_cache"}
            else:
                past = self._new_cache(len(ids)) if past is None else past
                told |= {"attention_mask": mask[:, -ids.shape[1] :].long(), "past_kv_cache": past}
        with self._pass(ids, mask, past=None if past is None or not _length(past) else past):
            logits = self._tl(ids, **told)
        if told["return_type"] == "logits_and_cache":
            logits, past = logits
        return (logits[:, -1:] if last else logits), past

    def _new_cache(self, rows: int) -> Any:
        from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache

        return TransformerLensKeyValueCache.init_cache(self.config, self.device, rows)

    def body(self, ids: Int[Tensor, "row pos"], mask: Bool[Tensor, "row pos"]) -> None:
        self.forward(ids, mask)

    @contextmanager
    def attached(self, changes: Sequence[tuple[str, int, Change]]) -> Iterator[None]:
        hooks = []
        for site, layer, change in changes:
            self.need_layer(layer)
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

    def _forget(self, *_: Any) -> None:
        self._where = None

    def _hook(self, change: Change) -> Callable:
        def hook(h: Tensor, hook: Any) -> Tensor | None:
            if self._where is None:
                raise SteerlabError(
                    f"{self.name}'s own generate does not say which tokens it runs, so an edit cannot tell BOS and "
                    "padding; use steerlab's generate, or edit.hooks(model)"
                )
            return change(h, self._where)

        return hook


def keep_rows(past: Any, rows: Int[Tensor, " row"]) -> None:
    """Drop the other rows from a cache, of Hugging Face or of a `HookedTransformer`."""
    if hasattr(past, "batch_select_indices"):
        past.batch_select_indices(rows)
        return
    past.previous_attention_mask = past.previous_attention_mask[rows]
    for entry in past.entries:
        entry.past_keys, entry.past_values = entry.past_keys[rows], entry.past_values[rows]


def where(
    ids: Int[Tensor, "row pos"],
    mask: Tensor | None,
    *,
    past: int,
    bos: int | None,
    rows: Tensor | None,
) -> Where:
    """Positions in absolute terms: with a cache, what comes after the prompt's pass is generated."""
    text = torch.ones_like(ids, dtype=torch.bool)
    if mask is not None and mask.ndim == 2:
        text = mask[:, -ids.shape[1] :].bool().clone()
    generated = torch.full_like(text, past > 0)
    if bos is not None and not past:
        first = text & (text.long().cumsum(1) == 1)
        text &= ~(first & (ids == bos))
    return Where(text, generated, torch.arange(len(ids), device=ids.device) if rows is None else rows)


def load(
    source: Any = None,
    *,
    dtype: str | torch.dtype | None = None,
    device: str | None = None,
    revision: str | None = None,
) -> Model:
    """Load a model by Hub id or folder; without one, polyglot from the package.

    A `HookedTransformer` or `TransformerBridge` is taken as it is. Weights stay raw. Without `dtype` a CPU computes in
    float32 and a GPU in the precision of the checkpoint; without `device` a GPU is used if there is one.
    """
    if isinstance(source, Model):
        return source
    if hasattr(source, "run_with_cache") and hasattr(source, "cfg"):
        return LensModel(source, name=str(getattr(source.cfg, "model_name", "model")))
    if source is not None and not isinstance(source, (str, Path)):
        raise SteerlabError(f"load takes a Hub id, a folder, or a TransformerLens model, not {type(source).__name__}")
    name = "polyglot" if source is None or str(source) == "polyglot" else str(source)
    folder = str(PACKAGED) if name == "polyglot" else name
    device = _device(device)
    hf, tokenizer = _pretrained(folder, _dtype(dtype, device), revision)
    model = Model(hf.to(device), tokenizer, name=name, revision=revision)
    for key, value in hf.state_dict().items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise SteerlabError(f"the weights of {name} hold NaN or infinity in {key}; fetch the model again")
    return model


def _pretrained(folder: str, dtype: Any, revision: str | None) -> tuple[Any, Any]:
    import transformers

    transformers.utils.logging.disable_progress_bar()
    try:
        make: Any = transformers.AutoModelForCausalLM.from_pretrained
        hf, found = make(folder, dtype=dtype, revision=revision, output_loading_info=True)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, revision=revision, padding_side="left")
    except (OSError, ValueError) as error:
        raise SteerlabError(
            f"could not load {folder!r}: it is no folder with a causal language model, and it could not be fetched "
            f"from the Hub or its cache ({str(error).splitlines()[0]}); give a folder, check the id, or connect once"
        ) from error
    except (SafetensorError, RuntimeError) as error:
        raise SteerlabError(
            f"the weights of {folder!r} are truncated, altered or of another shape than config.json says "
            f"({str(error).splitlines()[0]}); fetch the model again"
        ) from error
    if found["missing_keys"]:  # transformers would leave them random
        raise SteerlabError(f"{folder!r} has no weights for {min(found['missing_keys'])}; fetch the model again")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return hf, tokenizer


def _device(device: str | None) -> str:
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        told = str(error).splitlines()[0]
        raise SteerlabError(f"there is no device {device!r} here ({told}); use cpu, or cuda with a GPU") from error
    return device


def _dtype(dtype: str | torch.dtype | None, device: str) -> Any:
    if dtype is None:
        return torch.float32 if device == "cpu" else "auto"
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise SteerlabError(f"there is no dtype {dtype!r}; use float32, bfloat16 or float16")
    return found


def _blocks(hf: torch.nn.Module, count: int) -> torch.nn.ModuleList:
    """The decoder's blocks: the outermost list of modules as long as the model is deep."""
    found = [m for m in hf.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == count]
    if not found:
        raise SteerlabError(f"{type(hf).__name__} has no list of {count} blocks; it is no decoder that steerlab knows")
    return found[0]


def _attach(block: torch.nn.Module, site: str, change: Callable[[Tensor], Tensor | None]) -> Any:
    if site == "resid_pre":

        def before(_: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
            h = args[0] if args else kwargs["hidden_states"]
            new = change(h)
            if new is None:
                return None
            return ((new, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": new})

        return block.register_forward_pre_hook(before, with_kwargs=True)
    if site == "resid_post":

        def after(_: Any, __: tuple, out: Any) -> Any:
            new = change(out[0] if isinstance(out, tuple) else out)
            if new is None:
                return None
            return (new, *out[1:]) if isinstance(out, tuple) else new

        return block.register_forward_hook(after)
    raise SteerlabError(f"there is no site {site!r}; the sites are {', '.join(SITES)}")


def _length(past: Any) -> int:
    """Positions in a cache, of Hugging Face or of a `HookedTransformer`."""
    if past is None:
        return 0
    return int(past.get_seq_length() if hasattr(past, "get_seq_length") else past[0].past_keys.shape[1])


@torch.no_grad()
def _fingerprint(module: torch.nn.Module) -> str:
    """16 hex digits of the shapes and of 256 values of each parameter, rounded to bfloat16."""
    digest = hashlib.sha256()
    for name, value in module.named_parameters():
        flat = value.detach().flatten()
        few = flat[:: max(1, len(flat) // 256)][:256].to(torch.bfloat16).cpu().view(torch.int16)
        digest.update(json.dumps([name, list(value.shape)]).encode() + few.numpy().tobytes())
    return digest.hexdigest()[:16]
