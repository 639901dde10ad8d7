"""One streaming pass of a corpus, or of noise of its shape, into how often and how strongly
units are on."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Int
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from steerlab.core.corpus import Corpus
from steerlab.core.errors import SteerlabError
from steerlab.core.firing import Firing
from steerlab.engine.batching import InOrder
from steerlab.engine.forward import read
from steerlab.engine.inputs import chosen_layers, corpus_metadata, need_room, tokens_of
from steerlab.models.loading import load
from steerlab.models.model import Model
from steerlab.models.positions import HookFn, Positions

NOISE = ("random", "shuffled")
_UNUSED = re.compile(
    r"[<\[]\|?(unused|reserved)", re.IGNORECASE
)  # names of tokens that no text has


@runtime_checkable
class Encoder(Protocol):
    """What a pass asks of a sparse autoencoder."""

    layer: int
    site: str

    @property
    def width(self) -> int: ...
    @property
    def latents(self) -> int: ...
    @property
    def digest(self) -> str: ...
    def encode(self, h: Tensor) -> Tensor: ...
    def need(self, model: Any) -> None: ...
    def to(self, device: Any) -> Any: ...


def collect_units(
    model: Any,
    corpus: Corpus,
    saes: Mapping[int, Any] | None = None,
    *,
    layers: Iterable[int] | None = None,
    form: str | None = None,
    noise: str | None = None,
    seed: int = 0,
    keep: int = 0,
    batch: int = 64,
    progress: bool = False,
) -> Firing:
    """Count where units are on, and how strongly, in every line of a corpus; BOS and padding do not
    count.

    With `saes`, by layer: their latents (on where above 0) and the means of what they read.
    Without: the neurons of every MLP, on where the non-linearity's input is above 0, their value
    what comes out of it (LAPE, arXiv 2402.16438). `noise` reads other tokens in the texts' place,
    as many in each (LangFIR, arXiv 2604.03532): `random`, uniform over the vocabulary without
    special and unused tokens, or `shuffled`, each language's own tokens in another order, dealt to
    its texts anew. What a text's noise is depends on `seed`, its language and its place, not on the
    batch. `keep`: of how many texts a language to remember which units were on anywhere. Lines are
    read as they are: a prompt `form` puts a frame around them, such as a line break, that every
    text has and no noise, and that has features of its own.
    """
    model = load(model)
    if noise is not None and noise not in NOISE:
        raise SteerlabError(
            f"there is no noise {noise!r}; use {', '.join(NOISE)}, or None for the texts themselves"
        )
    if keep < 0 or batch < 1:
        raise SteerlabError(f"keep is 0 or more and batch 1 or more; given: {keep} and {batch}")
    reader = _neurons(model, layers) if saes is None else _latents(model, saes, layers)
    provenance = {
        "model": model.metadata,
        "corpus": corpus_metadata(corpus),
        "form": form,
        "noise": noise,
        "seed": seed,
    }
    provenance |= {"excluded": "BOS and padding"} | (
        {} if saes is None else {"saes": reader.digests}
    )
    firing = Firing(
        corpus.langs,
        reader.layers,
        reader.units,
        reader.width,
        site=reader.site,
        keep=min(keep, len(corpus)),
        noise=noise,
        provenance=provenance,
    )
    with Progress(console=Console(stderr=True), disable=not progress, transient=True) as bar:
        task = bar.add_task("reading", total=sum(map(len, corpus.lines.values())))
        inputs = InOrder(model)
        for lang in corpus.langs:
            ids = tokens_of(model, lang, corpus[lang], form)
            need_room(model, ids)
            ids = _noisy(model, ids, noise, _generator(seed, lang))
            for start in range(0, len(ids), batch):
                some = ids[start : start + batch]
                _read(inputs, firing, lang, some, reader)
                bar.advance(task, len(some))
    firing.provenance["tokens"] = int(firing.tokens.sum())
    return firing


# ------------------------------------------------------------------------------------- what is read


Sums = dict[int, list[Tensor]]  # of each layer: what `Firing.summed` gives


@dataclass
class _Neurons:
    """Reads neurons: the first site of a layer says which are on, the second their values."""

    layers: tuple[int, ...]
    units: int
    width: int
    site: str = "mlp_post"
    digests: list[str] = field(default_factory=list)

    def looks(self, firing: Firing, lang: str, sums: Sums) -> list[tuple[str, int, HookFn]]:
        """What looks at a pass of texts of one language and leaves their sums, layer by layer."""
        on: dict[int, Tensor] = {}

        def gate(layer: int) -> HookFn:
            return lambda h, _: on.__setitem__(layer, h > 0)

        def value(layer: int) -> HookFn:
            def look(h: Tensor, positions: Positions) -> None:
                sums[layer] = firing.summed(
                    lang, layer, on=on.pop(layer), value=h, states=h, mask=positions.text
                )

            return look

        looks: list[tuple[str, int, HookFn]] = []
        for layer in self.layers:
            looks += [("mlp_pre", layer, gate(layer)), (self.site, layer, value(layer))]
        return looks


@dataclass
class _Latents:
    """Reads latents: each layer's activations are encoded where they are, one layer at a time."""

    saes: Mapping[int, Any]
    layers: tuple[int, ...]
    units: int
    width: int
    site: str

    @property
    def digests(self) -> list[str]:
        return [self.saes[layer].digest for layer in self.layers]

    def looks(self, firing: Firing, lang: str, sums: Sums) -> list[tuple[str, int, HookFn]]:
        """What looks at a pass of texts of one language and leaves their sums, layer by layer."""

        def look(layer: int) -> HookFn:
            def see(h: Tensor, positions: Positions) -> None:
                text = positions.text
                z = h.new_zeros(*text.shape, self.units, dtype=torch.float32)
                z[text] = self.saes[layer].encode(h[text]).float()  # only of what counts: slow
                sums[layer] = firing.summed(lang, layer, on=z > 0, value=z, states=h, mask=text)

            return see

        return [(self.site, layer, look(layer)) for layer in self.layers]


def _neurons(model: Model, layers: Iterable[int] | None) -> _Neurons:
    units = model.width_of("mlp_post")
    return _Neurons(chosen_layers(model, layers), units, units)


def _latents(model: Model, saes: Mapping[int, Any], layers: Iterable[int] | None) -> _Latents:
    """The autoencoders of the layers, by default all; those that do not belong to the model or
    together raise."""
    if not saes:
        raise SteerlabError(
            "no autoencoder was given; give SAEs by layer, or none at all to read the MLPs' neurons"
        )
    chosen = tuple(sorted(saes) if layers is None else layers)
    if missing := [layer for layer in chosen if layer not in saes]:
        raise SteerlabError(
            f"there is no autoencoder for layer {missing[0]}; there are some for {sorted(saes)}"
        )
    chosen = chosen_layers(model, chosen)
    for layer in chosen:
        saes[layer].need(model)
        if saes[layer].layer != layer:
            raise SteerlabError(
                f"the autoencoder given for layer {layer} is one of layer {saes[layer].layer}"
            )
    kinds = {(saes[layer].site, saes[layer].latents, saes[layer].width) for layer in chosen}
    if len(kinds) > 1:
        listed = ", ".join(
            f"{latents} latents of width {width} at {site}"
            for site, latents, width in sorted(kinds)
        )
        raise SteerlabError(
            f"the autoencoders are of different kinds: {listed}; read each kind in a pass of its "
            "own"
        )
    [(site, latents, width)] = kinds
    return _Latents(
        {layer: saes[layer].to(model.device) for layer in chosen}, chosen, latents, width, site
    )


@torch.inference_mode()
def _read(
    inputs: InOrder,
    firing: Firing,
    lang: str,
    ids: Sequence[Sequence[int]],
    reader: _Neurons | _Latents,
) -> None:
    """Read texts, of which every layer is summed up on the way, and add their sums."""

    def work(rows: Sequence[int]) -> tuple[Sums, Tensor]:
        sums: Sums = {}
        looks = reader.looks(firing, lang, sums)
        text = read(inputs.model, [ids[row] for row in rows], looks)
        return sums, text

    # Added only when a pass is over: one that runs out of memory is run again, in halves.
    for sums, text in inputs.run(ids, work):
        for layer, own in sums.items():
            firing.add(lang, layer, own)
        firing.count(lang, text)


# -------------------------------------------------------------------------------------------- noise


def _noisy(
    model: Model, ids: list[list[int]], noise: str | None, generator: torch.Generator
) -> list[list[int]]:
    """The texts' tokens, or in their place others; BOS stays."""
    if noise is None:
        return ids
    first = 0 if model.tokenizer.bos_token_id is None else 1
    lengths = [len(row) - first for row in ids]
    if noise == "shuffled":
        own = torch.tensor([token for row in ids for token in row[first:]])
        drawn = own[torch.randperm(len(own), generator=generator)]
    else:
        pool = ordinary(model)
        drawn = pool[torch.randint(len(pool), (sum(lengths),), generator=generator)]
    return [
        row[:first] + part.tolist() for row, part in zip(ids, drawn.split(lengths), strict=True)
    ]


def ordinary(model: Model) -> Int[Tensor, " token"]:
    """The tokens that a text can have: neither special nor, by their names, unused or reserved."""
    tokenizer = model.tokenizer
    added = getattr(tokenizer, "added_tokens_decoder", {})
    special = {
        *tokenizer.all_special_ids,
        *(token for token, added_token in added.items() if added_token.special),
    }
    tokens = range(min(len(tokenizer), model.vocabulary))
    names = tokenizer.convert_ids_to_tokens(list(tokens))
    kept = [
        token for token in tokens if token not in special and not _UNUSED.match(str(names[token]))
    ]
    if not kept:
        raise SteerlabError(
            f"every token of {model.name} is special or unused, so there is none for random noise"
        )
    return torch.tensor(kept)


def _generator(seed: int, lang: str) -> torch.Generator:
    """One for each language, whichever others are read beside it."""
    digest = hashlib.sha256(f"{seed} {lang}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
