"""A Hugging Face model whose activations can be read and changed, and its TransformerLens twin."""

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Float
from rich.console import Console
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.models.anatomy import Anatomy, blocks, size_of, width_of
from steerlab.models.branching import Branch, joining
from steerlab.models.fingerprint import fingerprint_of, versions
from steerlab.models.generation import Followed, following
from steerlab.models.hooks import attach
from steerlab.models.kv_cache import Rerun, preallocate
from steerlab.models.model import Head, Model, Writes
from steerlab.models.positions import HookFn, Positions
from steerlab.models.pretrained import Files
from steerlab.models.stream import twin
from steerlab.models.trial import Abilities, is_plain, try_joining, try_rows
from steerlab.models.turns import Turns

# What configurations call the longest sequence that a model was made for.
_LENGTHS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_target_positions")


@final
class HuggingFaceModel(Model):
    """A causal language model of transformers.

    Args:
        hf: the network.
        tokenizer: its tokenizer.
        name: a Hub id, a folder, a GGUF file or what it is called.
        revision: of the Hub.
        gguf: SHA-256 of the GGUF file that the weights were unpacked from.
        files: where it was read from, if nothing has changed it since.
        in_memory: whether no other process can load it.
    """

    def __init__(
        self,
        hf: Any,
        tokenizer: Any,
        *,
        name: str,
        revision: str | None = None,
        gguf: str | None = None,
        files: Files | None = None,
        in_memory: bool = False,
    ):
        # The language model of one that also sees has a configuration of its own.
        text = getattr(hf.config, "get_text_config", None)
        config = hf.config if text is None else text()
        found = blocks(hf, size_of(config, "num_hidden_layers"))
        super().__init__(
            hf,
            tokenizer,
            name=name,
            revision=revision,
            config=config,
            n_layers=len(found),
            width=width_of(hf, config),
            fingerprint=fingerprint_of(hf, tokenizer, files),
        )
        self._hashed = versions(hf)  # the state of the weights that the fingerprint is of
        self.anatomy = Anatomy(hf, found)
        self.gguf = gguf
        self.files = files
        self.in_memory = in_memory
        self._tl: Any = None
        # What rows may do together: None until it is asked for.
        self.abilities: Abilities | None = None
        self._joining_tried = False
        self._signatures: dict[type, frozenset[str]] = {}

    @property
    def metadata(self) -> dict[str, Any]:
        return super().metadata | ({} if self.gguf is None else {"gguf": self.gguf})

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process loads the model itself."""
        from steerlab.models.loading import reload

        if self.in_memory:
            raise SteerlabError(
                f"{self.name} was made in memory and lives in this process only; other processes, "
                "as those of Ray, need a Hub id or a folder: save it with its tokenizer and load "
                "it from there, or sweep in this process"
            )
        source = str(Path(self.name).resolve()) if Path(self.name).exists() else self.name
        options: dict[str, Any] = {}
        device = self.device.type
        if self.files is not None:
            options["subfolder"] = self.files.subfolder
            options["trust_remote_code"] = self.files.trust_remote_code
            device = "auto" if self.files.spread else device
        return reload, (source, self.revision, self.dtype, device, self.fingerprint, options)

    @property
    def fingerprint(self) -> str:
        """Of the weights as they are now: made anew when one was changed since."""
        now = versions(self.hf)
        if now != self._hashed:
            vars(self)["fingerprint"] = fingerprint_of(self.hf, self.tokenizer)
            self._hashed = now
        return super().fingerprint

    @property
    def pads(self) -> bool:
        return self.tried(joining=False).pads

    @property
    def branches(self) -> bool:
        return self.tried().layout is not None

    def tried(self, *, joining: bool = True) -> Abilities:
        """What rows may do together; tried out once for what is not known of the architecture."""
        with self.turns.taken():
            found = self.abilities
            if found is None:
                plain = is_plain(self.hf, self.config)
                found = Abilities() if plain else try_rows(self._bare(Abilities()))
                self._say(found.why)
            if joining and not self._joining_tried:
                before, found = found.why, try_joining(self._bare(found), found)
                self._joining_tried = True
                self._say(found.why if found.why != before else "")
            self.abilities = found
            return found

    def _bare(self, abilities: Abilities) -> "HuggingFaceModel":
        """A view of the same weights that nothing is attached to, to try something on."""
        view = object.__new__(HuggingFaceModel)
        vars(view).update(vars(self))
        view.hf = twin(self.hf)
        view.anatomy = Anatomy(view.hf, view.hf.get_submodule(self.anatomy.path))
        view.turns = Turns.of(view.hf)
        view.abilities = abilities
        view.counts = []  # a trial is no reading
        view._joining_tried = True
        return view

    def _say(self, why: str) -> None:
        if why:
            Console(stderr=True).print(
                f"{self.name} ({type(self.hf).__name__}) does not give the numbers of single texts "
                f"with {why}; it runs without, which is slower",
                soft_wrap=True,
                highlight=False,
                markup=False,
            )

    @property
    def blocks(self) -> torch.nn.ModuleList:
        return self.anatomy.blocks

    @property
    def context(self) -> int:
        sizes = [size_of(self.config, name) for name in _LENGTHS]
        return next((size for size in sizes if size and size > 0), 2**31)

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

    @property
    def images(self) -> tuple[int, ...]:
        # Some configurations call it an index, and give the same by the name of others.
        found = (size_of(self.hf.config, f"{kind}_token_id") for kind in ("image", "video"))
        return tuple(token for token in found if token is not None)

    @property
    def routed(self) -> tuple[int, ...]:
        routers = self.anatomy.routers
        return tuple(layer for layer, router in enumerate(routers) if router is not None)

    def experts_per_token(self) -> int:
        return self.anatomy.router(self.routed[0]).per_token

    def writes(self, site: str, layer: int) -> Writes | None:
        return self.anatomy.writes(site, layer, self.dtype)

    @contextmanager
    def _attached(self, changes: Sequence[tuple[str, int, HookFn]]) -> Iterator[None]:
        if not hasattr(self.hf, "generate"):
            with self._hooked(changes):
                yield
            return
        with self._hooked(changes), following(self.hf, self._prompt, self._follow):
            yield

    def _prompt(self, ids: Tensor, mask: Tensor | None) -> Positions:
        return self.positions(ids, mask)

    def _follow(self, call: Followed | None) -> None:
        self._followed = call

    @contextmanager
    def _hooked(self, changes: Sequence[tuple[str, int, HookFn]]) -> Iterator[None]:
        handles: list[Any] = []
        try:
            # OPT's head calls what is inside of its base model, and `body` the base model alone.
            for network in {self.hf, self.hf.base_model}:
                handles.append(network.register_forward_pre_hook(self._watch, with_kwargs=True))
                handles.append(network.register_forward_hook(self._forget, always_call=True))
            for site, layer, change in changes:
                self.need_layer(layer)
                handles.append(attach(self.anatomy, layer, site, self._placed(change)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _placed(self, change: HookFn) -> Callable[[Tensor], Tensor | None]:
        def act(h: Tensor) -> Tensor | None:
            if self._where is None:
                raise SteerlabError(
                    f"a block of {self.name} ran by itself, so an edit cannot know BOS; run the "
                    "model"
                )
            where = self._where
            # Of a model on several devices, all that is attached works on the first.
            here = h.to(where.text.device)
            shape = where.text.shape
            lane = getattr(self.config, "altup_active_idx", None)
            if lane is not None and h.ndim == 4:
                # Gemma 3n has several streams, of which each block reads and writes one.
                new = change(here[lane], where)
                if new is not None:
                    lanes = list(here)
                    lanes[lane] = new
                    new = torch.stack(lanes)
            elif h.ndim == 3 and h.shape[:2] == shape:
                new = change(here, where)
            elif h.ndim != 2 or len(h) != shape.numel():
                raise SteerlabError(
                    f"what {self.name} has at a block for {shape[0]} rows of {shape[1]} tokens is "
                    f"of the shape {tuple(h.shape)}, not [row token width]: it has several streams "
                    "side by side or tokens of its own, which steerlab does not read"
                )
            else:  # OPT's MLP and some experts have the positions of all rows in a row
                new = change(here.unflatten(0, where.text.shape), where)
                new = None if new is None else new.flatten(0, 1)
            return None if new is None else new.to(h.device)

        return act

    def _body(self, ids: Tensor, mask: Tensor) -> None:
        # Without the unembedding, which takes a third of the time of a small model's pass.
        with self._pass(ids, mask) as positions:
            self._call(
                self.hf.base_model,
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                use_cache=False,
            )

    def _run(
        self, ids: Tensor, mask: Tensor, positions: Tensor, past: Any, *, last: int, cached: bool
    ) -> tuple[Tensor, Any]:
        if cached and not self.tried(joining=False).caches:
            return self._rerun(ids, mask, past, last=last)
        # State-space models call their cache by another name.
        name = "cache_params" if "cache_params" in self._takes(self.hf) else "past_key_values"
        if name == "cache_params":  # what is in their state has no position any more to mask
            mask = mask[:, -ids.shape[1] :]
        out = self._call(
            self.hf,
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            use_cache=cached,
            logits_to_keep=last,
            **{name: past},
        )
        # Not every architecture takes `logits_to_keep`.
        return out.logits[:, -last:], getattr(out, name, None)

    def _rerun(self, ids: Tensor, mask: Tensor, past: Any, *, last: int) -> tuple[Tensor, Any]:
        """A pass of all tokens so far, where there is no cache to go on from."""
        new = ids.shape[1]
        if past is not None:
            ids = torch.cat([past.ids, ids], 1)
            if self._where is not None and past.positions is not None:
                self._where = past.positions.followed_by(self._where)
        where = self._where  # which is forgotten at the end of the pass
        out = self._call(
            self.hf,
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            use_cache=False,
            logits_to_keep=last or new,
        )
        return out.logits[:, -(last or new) :], Rerun(ids, where)

    def _call(self, network: Any, **given: Any) -> Any:
        """A forward pass, with as many of these arguments as the network takes."""
        given["attention_mask"] = given["attention_mask"].long()  # some subtract it from 1
        takes = self._takes(network)
        if "kwargs" not in takes:
            given = {name: value for name, value in given.items() if name in takes}
        return network(**given)

    def _takes(self, network: Any) -> frozenset[str]:
        """The names of what the forward pass of a network takes; "kwargs" for any."""
        if type(network) not in self._signatures:
            parameters = inspect.signature(network.forward).parameters.values()
            names = (
                "kwargs" if each.kind is each.VAR_KEYWORD else each.name for each in parameters
            )
            self._signatures[type(network)] = frozenset(names)
        return self._signatures[type(network)]

    def _roomy(self, past: Any, room: int, branch: Branch | None) -> Any:
        if isinstance(past, Rerun):
            if branch is not None:  # of the positions, those of the rows are there already
                kept = branch.parent[: branch.kept]
                past.ids = past.ids[kept]
                if past.positions is not None:
                    past.positions = past.positions.of(torch.arange(len(kept), device=kept.device))
            return past
        rows = None
        if branch is not None:
            rows = [branch.final(block) for block in range(self.n_layers)]
        return preallocate(past, room, rows)

    def _joining(self, branch: Branch, positions: Positions) -> AbstractContextManager[None]:
        layout = self.tried().layout
        if layout is None:
            raise SteerlabError(
                f"the rows of {self.name} cannot join on the way through its blocks"
            )
        return joining(branch, self.blocks, positions, layout)
