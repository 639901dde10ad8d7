"""An encoder, such as XLM-R's or mT5's, whose activations can be read: each token sees those after
it, so that it predicts and generates nothing."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from typing import Any, NoReturn, final

import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.core.tokens import around
from steerlab.models.anatomy import Anatomy, blocks, size_of, width_of
from steerlab.models.branching import Branch
from steerlab.models.checks import ENCODERS
from steerlab.models.fingerprint import fingerprint_of
from steerlab.models.hooks import attach
from steerlab.models.model import Head, Model, Writes
from steerlab.models.positions import HookFn, Positions
from steerlab.models.pretrained import Files

_SITES = ("resid_pre", "resid_post")
_LONG, _SHORT = (9, 12, 7, 11, 8, 6), (10, 8, 6)  # token ids of two texts, to try padding on


@final
class Encoder(Model):
    """The encoder of a model of transformers; of T5's kind the decoder is left out.

    A text is read as the tokenizer makes it, with the special tokens before and behind it, which do
    not count. `resid_post` of a layer is what the block gives: behind its norm in BERT's kind, and
    before the last norm in T5's.

    Args:
        hf: the network, with or without a head on it.
        tokenizer: its tokenizer.
        name: a Hub id, a folder, or what it is called.
        revision: of the Hub.
        files: where it was read from, if nothing has changed it since.
    """

    def __init__(
        self,
        hf: Any,
        tokenizer: Any,
        *,
        name: str,
        revision: str | None = None,
        files: Files | None = None,
    ):
        network = _without_head(hf)
        found = blocks(network, size_of(network.config, "num_hidden_layers"))
        super().__init__(
            network,
            tokenizer,
            name=name,
            revision=revision,
            config=network.config,
            n_layers=len(found),
            width=width_of(network, network.config),
            fingerprint=fingerprint_of(network, tokenizer, files),
        )
        self.anatomy = Anatomy(network, found)
        # Of a pass of ours: where each position of the padded row is in the row that runs.
        self._order: Tensor | None = None

    @property
    def metadata(self) -> dict[str, Any]:
        return super().metadata | {"part": "encoder"}

    @property
    def excluded(self) -> str:
        return "special tokens and padding"

    @property
    def branches(self) -> bool:
        return False

    @cached_property
    @torch.inference_mode()
    def pads(self) -> bool:
        """Tried once: FNet, for one, mixes padding into its texts."""
        given: list[Tensor] = []
        changes = [("resid_post", self.n_layers - 1, lambda h, _: given.append(h))]
        width = max(map(len, (_LONG, _SHORT)))
        with self.turns.taken(), self.attached(changes):
            for texts in ((_LONG, _SHORT), (_LONG,), (_SHORT,)):
                ids = torch.full((len(texts), width), self.padding)
                for row, text in zip(ids, texts, strict=True):
                    row[width - len(text) :] = torch.tensor(text)
                ids = ids[:, -max(map(len, texts)) :].to(self.device)
                mask = torch.ones_like(ids, dtype=torch.bool)
                mask[1:, : len(_LONG) - len(_SHORT)] = False
                self.body(ids, mask)
        both, *alone = given
        together = (both[0], both[1, -len(_SHORT) :])
        slack = 1e-2 if self.dtype == torch.float32 else 0.3
        return all(
            bool((one - apart[0]).norm() <= slack * apart[0].norm())
            for one, apart in zip(together, alone, strict=True)
        )

    @property
    def context(self) -> int:
        size = size_of(self.config, "max_position_embeddings") or 0
        if size <= 0 or getattr(self.config, "relative_attention_num_buckets", None):
            return 2**31
        # RoBERTa's kind counts positions from behind the number of the padding.
        table = [
            module
            for name, module in self.hf.named_modules()
            if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding)
        ]
        before = [each.padding_idx + 1 for each in table if each.padding_idx is not None]
        return size - max(before, default=0)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each text, with the special tokens that the tokenizer puts around it; a
        text without tokens of its own raises."""
        encoded = [list(self.tokenizer(text).input_ids) for text in texts]
        for text, ids in zip(texts, encoded, strict=True):
            if all(token in self._around for token in ids):
                raise SteerlabError(f"the text {text!r} has no tokens; give some text")
        return encoded

    def positions(
        self, ids: Tensor, mask: Tensor | None, *, past: int = 0, rows: Tensor | None = None
    ) -> Positions:
        real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
        begins = real & torch.isin(ids, torch.tensor(sorted(self._around), device=ids.device))
        text = real & ~begins
        if rows is None:
            rows = torch.arange(len(ids), device=ids.device)
        return Positions(text, torch.zeros_like(text), rows, begins=begins)

    @cached_property
    def _around(self) -> frozenset[int]:
        return around(self.tokenizer)

    def need_decoder(self, what: str) -> None:
        raise SteerlabError(
            f"{what} needs a model that predicts the next token, and {self.name} is an encoder, "
            "which collect and text_means read: each of its tokens sees those after it; take a "
            "causal language model"
        )

    def need_unedited(self, what: str) -> None:
        self.need_decoder(what)

    def width_of(self, site: str) -> int:
        if site not in _SITES:
            raise SteerlabError(
                f"of an encoder ({self.name}) {' and '.join(_SITES)} are read, and not {site!r}"
            )
        return self.width

    def writes(self, site: str, layer: int) -> Writes | None:
        return None

    @property
    def tl(self) -> Any:
        self.need_decoder("a model of TransformerLens")

    @property
    def head(self) -> Head:
        return self._none("an unembedding")

    @property
    def blocks(self) -> torch.nn.ModuleList:
        return self.anatomy.blocks

    def neuron_outputs(self, layer: int) -> Float[Tensor, "width neuron"]:
        return self._none("what its neurons write")

    def _none(self, what: str) -> NoReturn:
        self.need_decoder(what)
        raise AssertionError  # it has raised

    @contextmanager
    def _attached(self, changes: Sequence[tuple[str, int, HookFn]]) -> Iterator[None]:
        handles: list[Any] = []
        try:
            handles.append(self.hf.register_forward_pre_hook(self._watch, with_kwargs=True))
            handles.append(self.hf.register_forward_hook(self._forget, always_call=True))
            for site, layer, change in changes:
                self.need_layer(layer)
                self.width_of(site)  # raises for one that is not read
                handles.append(attach(self.anatomy, layer, site, self._placed(change)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _placed(self, change: HookFn) -> Callable[[Tensor], Tensor | None]:
        def act(h: Tensor) -> Tensor | None:
            where = self._where
            if where is None or h.ndim != 3 or h.shape[:2] != where.text.shape:
                expected = "a pass of its own" if where is None else tuple(where.text.shape)
                raise SteerlabError(
                    f"what {self.name} has at a block is of the shape {tuple(h.shape)}, for texts "
                    f"of the shape {expected}, and not [row token width], which steerlab reads"
                )
            if self._order is None:
                return change(h, where)
            index = self._order[..., None].expand_as(h)
            new = change(h.gather(1, index), where)
            return None if new is None else torch.empty_like(h).scatter_(1, index, new)

        return act

    def _body(self, ids: Tensor, mask: Tensor) -> None:
        # Rows are padded on the left, and an encoder counts its positions from the left: it gets
        # them padded on the right, as it was trained.
        shift = (~mask).long().sum(1, keepdim=True)
        place = torch.arange(ids.shape[1], device=ids.device)
        back = (place + shift) % ids.shape[1]  # of the row that runs, where it was before
        with self._pass(ids, mask):
            self._order = (place - shift) % ids.shape[1]
            try:
                self.hf(input_ids=ids.gather(1, back), attention_mask=mask.gather(1, back).long())
            finally:
                self._order = None

    def _run(self, *_: Any, **__: Any) -> tuple[Tensor, Any]:
        return self._none("what runs rows for their logits")

    def _roomy(self, past: Any, room: int, branch: Branch | None) -> Any:
        return self._none("a cache")

    def _joining(self, branch: Branch, positions: Positions) -> AbstractContextManager[None]:
        return self._none("what runs rows that join")


def _without_head(hf: Any) -> Any:
    """The network below a head and a pooler, whose weights may be random: a view of the same
    weights."""
    # T5's kinds hold their encoder as a part that runs by itself.
    network = hf.get_encoder() if hf.config.model_type in ENCODERS else hf.base_model
    if getattr(network, "pooler", None) is None:
        return network
    bare = copy.copy(network)
    bare._modules = {**network._modules, "pooler": None}
    return bare
