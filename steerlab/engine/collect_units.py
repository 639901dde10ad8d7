"""One streaming pass of a corpus, or of noise of its shape, that counts how often and how strongly
units (neurons, or latents of SAEs) are on."""

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from steerlab.core.corpus import Corpus, as_corpus
from steerlab.core.errors import SteerlabError
from steerlab.core.firing import Firing
from steerlab.core.progress import bar
from steerlab.engine.batching import InOrder
from steerlab.engine.forward import read
from steerlab.engine.inputs import chosen_layers, corpus_metadata, need_room, tokens_of
from steerlab.models.loading import load
from steerlab.models.model import Model
from steerlab.models.positions import HookFn, Positions

NOISE = ("random", "shuffled")
# How tokenizers name tokens that no text has: <unused12>, [unused3], <|reserved_special_token_4|>.
_UNUSED = re.compile(r"[<\[]\|?(unused|reserved)", re.IGNORECASE)


@runtime_checkable
class Encoder(Protocol):
    """What a pass needs of a sparse autoencoder; `steerlab.sae.SAE` has it."""

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
    corpus: Corpus | str | os.PathLike[str] | None,
    saes: Mapping[int, Any] | None = None,
    *,
    layers: Iterable[int] | None = None,
    form: str | None = None,
    noise: str | None = None,
    seed: int = 0,
    keep: int = 0,
    batch: int = 64,
    progress: bool | None = None,
) -> Firing:
    """Count where units are on, and how strongly, in every line of a corpus; BOS and padding do not
    count.

    With `saes` the units are their latents, on where above 0, and the means of what the SAEs read
    are kept too. Without, they are the neurons of every MLP: on where the input of the
    non-linearity is above 0, and their value is what comes out of it (LAPE, arXiv 2402.16438).

    Raises `SteerlabError` for autoencoders that do not belong to the model, to their layer, or
    together.

    Args:
        model: what `load` takes.
        corpus: the lines to read, in each language; or the folder of them.
        saes: autoencoders by layer; None for the neurons.
        layers: which layers to read; by default all of the model, or of `saes`.
        form: how a line becomes a prompt, such as line or chat; None reads it as it is. A form
            puts something around every text, such as a line break, that noise does not have, and
            that has features of its own.
        noise: other tokens to read in the texts' place, as many in each (LangFIR, arXiv
            2604.03532): `random`, uniform over the vocabulary without special and unused tokens, or
            `shuffled`, each language's own tokens dealt to its texts anew. None reads the texts.
        seed: decides the noise. With its language and the text's index it alone does: the batch
            does not matter.
        keep: of how many texts a language to remember which units were on anywhere.
        batch: how many texts are read together.
        progress: whether to show a bar on stderr; by default in a terminal and in a notebook.
    """
    model = load(model)
    corpus = as_corpus(corpus)
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
        "excluded": model.excluded,
    }
    if saes is not None:
        provenance["saes"] = reader.digests
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
    with bar(progress=progress) as display:
        task = display.add_task("reading", total=sum(map(len, corpus.lines.values())))
        inputs = InOrder(model)
        for lang in corpus.langs:
            ids = tokens_of(model, lang, corpus[lang], form)
            need_room(model, ids)
            if noise is not None:
                # For all texts at once, so that the noise does not depend on the batch.
                ids = _noise_for(model, ids, noise, _generator(seed, lang))
            for start in range(0, len(ids), batch):
                part = ids[start : start + batch]
                _read(inputs, firing, lang, part, reader)
                display.advance(task, len(part))
    firing.provenance["tokens"] = int(firing.tokens.sum())
    return firing


# ------------------------------------------------------------------------------------- what is read


Sums = dict[int, list[Tensor]]  # by layer, what `Firing.summed` gives
Hooks = list[tuple[str, int, HookFn]]  # (site, layer, function)


@dataclass
class _Neurons:
    """Reads neurons: `mlp_pre` of a layer says which are on, `mlp_post` what their values are."""

    layers: tuple[int, ...]
    units: int
    width: int
    site: str = "mlp_post"
    digests: list[str] = field(default_factory=list)

    def hooks(self, firing: Firing, lang: str, sums: Sums) -> Hooks:
        """The functions that look at a pass of texts of one language and put the sums of each layer
        into `sums`."""
        hooks: Hooks = []
        for layer in self.layers:
            hooks += self._hooks_of(layer, firing, lang, sums)
        return hooks

    def _hooks_of(self, layer: int, firing: Firing, lang: str, sums: Sums) -> Hooks:
        on: dict[int, Tensor] = {}  # from the first hook to the second, of the same pass

        def see_inputs(h: Tensor, _: Positions) -> None:
            on[layer] = h > 0

        def see_values(h: Tensor, positions: Positions) -> None:
            sums[layer] = firing.summed(
                lang, layer, on=on.pop(layer), value=h, states=h, mask=positions.text
            )

        return [("mlp_pre", layer, see_inputs), (self.site, layer, see_values)]


@dataclass
class _Latents:
    """Reads latents: each layer's activations are encoded as they pass, so that the latents of one
    layer at a time are in memory."""

    saes: Mapping[int, Any]
    layers: tuple[int, ...]
    units: int
    width: int
    site: str

    @property
    def digests(self) -> list[str]:
        """What tells each autoencoder from others, by layer."""
        return [self.saes[layer].digest for layer in self.layers]

    def hooks(self, firing: Firing, lang: str, sums: Sums) -> Hooks:
        """The functions that look at a pass of texts of one language and put the sums of each layer
        into `sums`."""
        return [
            (self.site, layer, self._hook_of(layer, firing, lang, sums)) for layer in self.layers
        ]

    def _hook_of(self, layer: int, firing: Firing, lang: str, sums: Sums) -> HookFn:
        def see(h: Tensor, positions: Positions) -> None:
            text = positions.text
            z = h.new_zeros(*text.shape, self.units, dtype=torch.float32)
            # Encoding is slow, so only what counts is encoded; the rest stays 0.
            z[text] = self.saes[layer].encode(h[text]).float()
            sums[layer] = firing.summed(lang, layer, on=z > 0, value=z, states=h, mask=text)

        return see


def _neurons(model: Model, layers: Iterable[int] | None) -> _Neurons:
    """A reader of the neurons of the layers, by default all."""
    units = model.width_of("mlp_post")
    return _Neurons(chosen_layers(model, layers), units, units)


def _latents(model: Model, saes: Mapping[int, Any], layers: Iterable[int] | None) -> _Latents:
    """A reader of the latents of the layers, by default of all that have an autoencoder.

    Autoencoders that do not belong to the model, to their layer, or together raise `SteerlabError`.
    """
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
    # One table of counts holds all layers, so that they must have the same units.
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
    on_device = {layer: saes[layer].to(model.device) for layer in chosen}
    return _Latents(on_device, chosen, latents, width, site)


@torch.inference_mode()
def _read(
    inputs: InOrder,
    firing: Firing,
    lang: str,
    ids: Sequence[Sequence[int]],
    reader: _Neurons | _Latents,
) -> None:
    """Read texts of one language and add their sums to `firing`."""

    def work(rows: Sequence[int]) -> tuple[Sums, Tensor]:
        sums: Sums = {}
        hooks = reader.hooks(firing, lang, sums)
        text = read(inputs.model, [ids[row] for row in rows], hooks)
        return sums, text

    # Added only when a pass is over: one that runs out of memory is run again, in halves.
    for sums, text in inputs.run(ids, work):
        for layer, of_layer in sums.items():
            firing.add(lang, layer, of_layer)
        firing.count(lang, text)


# -------------------------------------------------------------------------------------------- noise


def _noise_for(
    model: Model, ids: list[list[int]], noise: str, generator: torch.Generator
) -> list[list[int]]:
    """Other tokens in the place of the texts', as many in each; BOS stays."""
    first = len(model.begins["bos"])
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
    """The tokens that a text can have: neither special nor, by their names, unused or reserved.

    A model without any raises `SteerlabError`.
    """
    tokenizer = model.tokenizer
    # Tokens that were added to a tokenizer may be special without being among its named ones.
    added = getattr(tokenizer, "added_tokens_decoder", {})
    added_special = [token for token, entry in added.items() if entry.special]
    special = {*tokenizer.all_special_ids, *added_special}
    # A tokenizer may have more tokens than the model has embeddings, and the other way round.
    tokens = range(min(len(tokenizer), model.vocabulary))
    names = tokenizer.convert_ids_to_tokens(list(tokens))
    kept = [
        token for token in tokens if token not in special and not _UNUSED.match(str(names[token]))
    ]
    if not kept:
        raise SteerlabError(
            f"every token of {model.name} is special or unused, so there is none for random noise; "
            "use the noise 'shuffled'"
        )
    return torch.tensor(kept)


def _generator(seed: int, lang: str) -> torch.Generator:
    """A generator for each language, so that its noise does not depend on which others are read."""
    # Python's `hash` of a string differs from process to process; 7 bytes fit a seed of torch.
    digest = hashlib.sha256(f"{seed} {lang}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
