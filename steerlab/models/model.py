"""What the rest of the package asks of a model, whoever runs it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from steerlab.core.display import Shown, View
from steerlab.core.errors import SteerlabError
from steerlab.core.tokens import beginning, excluded, specials
from steerlab.models.branching import Branch
from steerlab.models.generation import Followed
from steerlab.models.kv_cache import length
from steerlab.models.positions import HookFn, Positions, positions_of
from steerlab.models.turns import Turns
from steerlab.models.view import view_of

# Where and how what is at a site inside a block reaches the residual stream (`Model.writes`).
Writes = tuple[str, Callable[[Tensor, Tensor], Tensor]]


def as_it_is(before: Tensor, added: Tensor) -> Tensor:
    """What is added to the stream where the site's activations are added to it themselves."""
    return added.expand_as(before)


@dataclass(frozen=True)
class Head:
    """What follows the last block: the final norm, and the unembedding."""

    norm: Any
    unembedding: Float[Tensor, "vocab width"]


# Whose hooks are part of a model, such as those that move its parts between devices.
_LIBRARIES = {"transformers", "accelerate", "peft", "bitsandbytes", "torch"}
# Its bridge wires its blocks at their first pass; what a user hooks is wrapped in `hook_points`.
_WIRING = "transformer_lens.model_bridge."


class _Enough(Exception):
    """What is wanted of a pass has been seen."""


def _no_further(*_: Any) -> None:
    raise _Enough


class Model(Shown, ABC):
    """A causal language model with its tokenizer, whose activations can be read and changed at any
    layer.

    Args:
        hf: the network: a model of transformers or of TransformerLens.
        tokenizer: a tokenizer of transformers.
        name: a Hub id, a folder, or what it is called.
        revision: of the Hub.
        config: the network's own configuration.
        n_layers: how many blocks it has.
        width: how wide its residual stream is.
        fingerprint: of its weights; "" where they cannot be compared with those of other models.
    """

    def __init__(
        self,
        hf: Any,  # torch would type each of its attributes as a tensor or a module
        tokenizer: Any,
        *,
        name: str,
        revision: str | None,
        config: Any,
        n_layers: int,
        width: int,
        fingerprint: str,
    ):
        self.hf = hf.eval()
        self.tokenizer = tokenizer
        self.name = name
        self.revision = revision
        self.config = config
        self.n_layers = n_layers
        self.width = width
        vars(self)["fingerprint"] = fingerprint
        self.turns = Turns.of(hf)  # one thread at a time
        # The call of the network's own `generate` that is running, if an edit is on.
        self._followed: Followed | None = None
        self._begins: dict[str, tuple[int, ...]] | None = None
        # The positions of the pass in flight, and None between passes. A module's hook gets nothing
        # of ours but the module and its input, so it reads them here. `forward` and `body` put them
        # here before their pass; for one that somebody else begins, as `hf.generate` under an edit
        # does, `_watch` does so.
        self._where: Positions | None = None
        self.counts: list[Any] = []  # who counts what is read (`models.counting`)
        # Whether rows may go on from a common beginning (`engine.prefix`); None until it is tried.
        self.goes_on: bool | None = None

    def _view(self) -> View:
        return view_of(self)

    @property
    def fingerprint(self) -> str:
        """Two hashes of what the model is, as `core.fingerprints` explains; "" where its weights
        cannot be compared with those of other models."""
        return str(vars(self)["fingerprint"])

    @property
    def device(self) -> torch.device:
        """Where tokens go in: of a model on several devices, that of the embedding."""
        # What lies elsewhere until it is needed is on "meta".
        lying = (each.device for each in self.hf.parameters() if not each.is_meta)
        return next(lying, torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype:
        """What is computed in, however the weights are kept."""
        kept = [each.dtype for each in self.hf.parameters() if each.is_floating_point()]
        # Eight bits and fewer are only kept, never computed in.
        return next((each for each in kept if each.itemsize > 1), torch.get_default_dtype())

    @property
    def padding(self) -> int:
        """The token to pad with: any will do behind a mask, but it must be in the embedding."""
        token = self.tokenizer.pad_token_id
        return token if token is not None and 0 <= token < self.embedded else 0

    @property
    def embedded(self) -> int:
        """How many tokens the embedding has a row for."""
        table = getattr(self.hf, "get_input_embeddings", lambda: None)()
        weight = getattr(table, "weight", None)
        return self.vocabulary if weight is None else int(weight.shape[0])

    @property
    @abstractmethod
    def branches(self) -> bool:
        """Whether rows can join on the way through `forward`."""

    @property
    @abstractmethod
    def pads(self) -> bool:
        """Whether rows of several lengths can run together, behind padding."""

    @property
    @abstractmethod
    def context(self) -> int:
        """The longest sequence that the model was made for."""

    @property
    def heads(self) -> int:
        """How many heads of attention lie side by side at `attn_z`; raises where the configuration
        does not say, or says another number for each layer."""
        for name in ("num_attention_heads", "n_head", "n_heads", "num_heads"):
            count = vars(self.config).get(name, getattr(self.config, name, None))
            if isinstance(count, int) and count > 0:
                return count
        raise SteerlabError(f"the configuration of {self.name} does not say how many heads it has")

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
        configured = getattr(getattr(self.hf, "generation_config", None), "eos_token_id", None)
        listed = configured if isinstance(configured, list) else [configured]
        return {token for token in (*listed, self.tokenizer.eos_token_id) if token is not None}

    @property
    def metadata(self) -> dict[str, Any]:
        """What an artefact says of the model that it was made with."""
        return {
            "name": self.name,
            "revision": self.revision,
            "fingerprint": self.fingerprint,
            "dtype": str(self.dtype).removeprefix("torch."),
            "processing": self.processing,
        }

    @property
    def processing(self) -> str:
        """What was done to the weights since training: directions of a model whose norms were
        folded are others than those of the model as it was trained."""
        return "raw weights"

    @property
    @abstractmethod
    def tl(self) -> Any:
        """The same weights as a model of TransformerLens: its hook names, caches and tools."""

    @property
    @abstractmethod
    def blocks(self) -> torch.nn.ModuleList:
        """The decoder's blocks."""

    @property
    @abstractmethod
    def head(self) -> Head:
        """The norm and the unembedding after the last block."""

    @abstractmethod
    def neuron_outputs(self, layer: int) -> Float[Tensor, "width neuron"]:
        """What each neuron of a layer's MLP writes, before any norm of it."""

    @abstractmethod
    def width_of(self, site: str) -> int:
        """How wide activations are at a site: d_model in the residual stream and in what is added
        to it, d_mlp inside an MLP, heads times d_head before an attention's output projection.

        Raises for a site that the model does not have.
        """

    @abstractmethod
    def writes(self, site: str, layer: int) -> Writes | None:
        """How what is at a site inside a block reaches the residual stream: at which site, and a
        function of what is there before, and of what is added to it, [row pos width] each, to what
        is added to the stream.

        None where that is not known, and where more lies between, such as a non-linearity.
        """

    @property
    def images(self) -> tuple[int, ...]:
        """The tokens in whose places the model puts the parts of a picture; of one that does not
        see, none."""
        return ()

    @property
    def routed(self) -> tuple[int, ...]:
        """The layers whose blocks have a router, which are those with the site `router`; raises for
        a model without experts."""
        raise SteerlabError(f"{self.name} has no routers, so it has no site 'router'")

    def experts_per_token(self) -> int:
        """How many experts a token meets at a layer; raises for a model without experts."""
        raise SteerlabError(f"{self.name} has no routers, so no experts of a token")

    def need_layer(self, layer: int) -> None:
        """Raise for a layer that the model does not have."""
        if not 0 <= layer < self.n_layers:
            raise SteerlabError(
                f"{self.name} has layers 0 to {self.n_layers - 1}; layer {layer} was asked for"
            )

    @property
    def excluded(self) -> str:
        """What no statistic counts and no edit touches, in words, for headers of files."""
        return excluded(self.tokenizer)

    def need_decoder(self, what: str) -> None:
        """Raise where the model predicts no next token, which `what` needs."""

    def need_unedited(self, what: str) -> None:
        """Raise where something that may change what the model says is on it: an edit, or a hook
        of somebody else; `what` is refused then."""
        with self.turns.taken():
            hooked = [name for name, module in self.hf.named_modules() if _has_foreign_hook(module)]
            if self.attachments:
                raise SteerlabError(
                    f"an edit is on {self.name} already, and {what} takes the model as it is; "
                    "leave the edit's `with` first"
                )
        if torch.is_autocast_enabled(self.device.type):
            raise SteerlabError(
                f"torch.autocast is on, under which {self.name} computes in another precision than "
                f"it says, and {what} takes the model as it is; load it with dtype= instead"
            )
        if hooked:
            raise SteerlabError(
                f"{self.name} has a forward hook on {hooked[0] or 'the whole of it'}, which may "
                f"change what it says, and {what} takes the model as it is; remove the hook first"
            )

    @contextmanager
    def attached(self, changes: Sequence[tuple[str, int, HookFn]]) -> Iterator[None]:
        """Attach functions of (h [row pos width], Positions) to sites of layers; all or none, and
        gone afterwards whatever happens.

        A function that returns None only looks. They see every forward pass of the network, also
        those that somebody else begins; of other threads they wait for, or raise.
        """
        with self.turns.opened(), self._attached(changes):
            yield

    @abstractmethod
    def _attached(self, changes: Sequence[tuple[str, int, HookFn]]) -> AbstractContextManager[None]:
        """`attached`, where it is this thread's turn."""

    @property
    def attachments(self) -> int:
        """How many `attached` are open on the network, by this model or another view of it."""
        return self.turns.attachments

    def forward(
        self,
        ids: Int[Tensor, "row pos"],
        mask: Bool[Tensor, "row total"],
        *,
        past: Any = None,
        last: int = 0,
        room: int | None = None,
        branch: Branch | None = None,
        positions: Positions | None = None,
    ) -> tuple[Float[Tensor, "out_row out vocab"], Any]:
        """Logits, and a cache if one is asked for. `engine.forward` runs many rows by it.

        Args:
            ids: tokens; behind a cache, only the new ones.
            mask: true where there is no padding, the cache's positions included.
            past: the cache that an earlier pass gave.
            last: of how many positions, the last ones, logits are wanted; 0 for all. With a large
                vocabulary they take most of the time.
            room: how many more positions the cache shall have room for; None for no cache.
            branch: rows that join on the way, of which the ids are the prompts: logits and cache
                are those of the rows, in the branch's order.
            positions: what attached functions see, such as which row each one is; by default the
                rows are taken for the whole batch. With a branch they follow from it.
        """
        with self._pass(ids, mask, past=past, branch=branch, positions=positions) as places:
            logits, past = self._run(
                ids, mask, places, past, last=last, cached=past is not None or room is not None
            )
        if room is not None:
            past = self._roomy(past, room, branch)
        return logits, past

    def body(
        self,
        ids: Int[Tensor, "row pos"],
        mask: Bool[Tensor, "row pos"],
        *,
        through: int | None = None,
    ) -> None:
        """Run the blocks, of layer `through` the last, for the sake of what is attached to them."""
        stop = self.n_layers if through is None else through + 1
        hooks = [block.register_forward_pre_hook(_no_further) for block in self.blocks[stop:][:1]]
        try:
            self._body(ids, mask)
        except _Enough:
            pass
        finally:
            for hook in hooks:
                hook.remove()

    @abstractmethod
    def _body(self, ids: Tensor, mask: Tensor) -> None:
        """Run the blocks."""

    @abstractmethod
    def _run(
        self, ids: Tensor, mask: Tensor, positions: Tensor, past: Any, *, last: int, cached: bool
    ) -> tuple[Tensor, Any]:
        """One pass, with a cache to go on from if `cached`."""

    @abstractmethod
    def _roomy(self, past: Any, room: int, branch: Branch | None) -> Any:
        """A cache with room for so many more positions, of the rows of a branch if there is one."""

    @abstractmethod
    def _joining(self, branch: Branch, positions: Positions) -> AbstractContextManager[None]:
        """Let rows join on the way, for one pass."""

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
        with self.turns.taken(), self._placing(ids, mask, past, branch, positions) as places:
            yield places

    @contextmanager
    def _placing(
        self,
        ids: Tensor,
        mask: Tensor,
        past: Any,
        branch: Branch | None,
        positions: Positions | None,
    ) -> Iterator[Tensor]:
        if self.hf.training:
            raise SteerlabError(
                f"{self.name} is in training mode, in which dropout changes its numbers at random; "
                "call model.hf.eval() first"
            )
        if self.attachments or branch:
            if positions is None or branch:
                # A branch's pass begins with prompts, which are nobody's rows: no edit is theirs.
                rows = torch.full((len(ids),), -1, device=ids.device) if branch else None
                positions = self.positions(ids, mask, past=length(past), rows=rows)
            self._where = positions
        for count in self.counts:
            count.add(mask[:, -ids.shape[1] :])
        try:
            with self._joining(branch, self._where) if branch and self._where else nullcontext():
                yield (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        finally:
            self._where = None

    def positions(
        self, ids: Tensor, mask: Tensor | None, *, past: int = 0, rows: Tensor | None = None
    ) -> Positions:
        """What counts in a pass: neither padding nor how texts begin (see `positions_of`)."""
        return positions_of(ids, mask, past=past, rows=rows, **self.begins)

    @property
    def begins(self) -> dict[str, tuple[int, ...]]:
        """The tokens that do not count, at the beginning of a text and in a picture's places, as
        `positions_of` takes them."""
        if self._begins is None:
            self._begins = {
                "bos": beginning(self.tokenizer),
                "special": specials(self.tokenizer),
                "image": self.images,
            }
        return self._begins

    def _watch(self, _: Any, args: tuple, kwargs: dict) -> None:
        """Learn the positions of a pass that somebody else began."""
        self.turns.need_own()
        if self._where is not None:  # ours, or another `attached` has seen the pass begin
            return
        ids = kwargs.get("input_ids", kwargs.get("input", args[0] if args else None))
        if not isinstance(ids, Tensor) or ids.is_floating_point():
            raise SteerlabError(
                "an edit needs token ids, to know BOS and padding; pass input_ids, not embeddings"
            )
        names = ("past_key_values", "cache_params", "past_kv_cache")
        past = next((kwargs[name] for name in names if kwargs.get(name)), None)
        if self._followed is not None:
            self._where = self._followed.positions(ids, past)
        else:
            self._where = self.positions(ids, kwargs.get("attention_mask"), past=length(past))

    def _forget(self, *_: Any) -> None:
        """A pass is over, by an error too: what was learnt of it says nothing of the next."""
        self._where = None


def _has_foreign_hook(module: torch.nn.Module) -> bool:
    """Whether a hook is on a module that no library of models put there for its own ends:
    transformers leaves some, which only look, once hidden states were asked for; TransformerLens'
    bridge does once it has run."""
    hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    makers = [getattr(hook, "__module__", None) or "" for hook in hooks]
    return any(
        maker.split(".")[0] not in _LIBRARIES and not maker.startswith(_WIRING) for maker in makers
    )
