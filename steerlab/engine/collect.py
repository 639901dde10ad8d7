"""One streaming pass of a corpus through a model, into the statistics that estimators take."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from rich.console import Console
from torch import Tensor

from steerlab.core.corpus import Corpus, as_corpus
from steerlab.core.errors import SteerlabError
from steerlab.core.moments import PAIRS, PARTS, Moments
from steerlab.core.progress import bar
from steerlab.core.samples import Paired, derangement
from steerlab.core.sites import hook_name
from steerlab.engine.batching import InOrder
from steerlab.engine.forward import read
from steerlab.engine.inputs import chosen_layers, corpus_metadata, need_room, tokens_of
from steerlab.models.encoder import Encoder
from steerlab.models.loading import load
from steerlab.models.positions import HookFn, Positions

SAMPLE = PAIRS  # token vectors of a language that are kept, in a reservoir
TEXTS = 64  # texts of one language that are read together
FREE_BYTES = 256 * 2**20  # statistics up to this size are gathered without being asked for


@torch.inference_mode()
def collect(
    model: Any,
    corpus: Corpus | str | os.PathLike[str] | None,
    *,
    layers: Iterable[int] | None = None,
    site: str = "resid_post",
    also: Sequence[str] | None = None,
    source: str = "en",
    derange: int | None = None,
    form: str = "line",
    batch: int = TEXTS,
    progress: bool | None = None,
) -> Moments:
    """Read every line of a corpus once and keep statistics of the activations in each language; BOS
    and padding do not count.

    Beside counts and means there are four kinds of statistics, which `also` names:

    - `scatter`: width² numbers a layer, for `lda` and `leace`.
    - `clouds`: width² numbers a layer and language, for `ellipsoid`.
    - `sample`: token vectors, for `probe` and the shrinkage of `lda`.
    - `pairs`: differences of sentences from their translations in `source`, width² numbers a layer
      and language, for `pca` and `eigengap`; needs an aligned corpus.

    Raises `SteerlabError` for an unknown statistic, layer or site, and for pairs of a corpus that
    is not aligned.

    Args:
        model: what `load` takes.
        corpus: the lines to read, in each language; or the folder of them.
        layers: which layers to read; by default all.
        site: where in a layer.
        also: the statistics to gather; by default each that takes at most 256 MB. What takes more
            in all is announced on stderr first.
        source: the language that pairs start from.
        derange: a seed. Each sentence of the source is then paired with the translation of another
            of its batch: a control, for what paired methods find without true pairs.
        form: how a line becomes a prompt, such as line or chat. An encoder reads lines as they
            are, with the special tokens around them that its tokenizer puts there, which do not
            count.
        batch: how many texts of a language are read together.
        progress: whether to show a bar on stderr; by default in a terminal and in a notebook.
    """
    model = load(model)
    corpus = as_corpus(corpus)
    asked: Any = batch  # checked, since what a caller gives may be anything
    if not isinstance(asked, int) or asked < 1:
        raise SteerlabError(f"a batch of {batch!r} texts is none; give 1 or more")
    chosen = chosen_layers(model, layers)
    width = model.width_of(site)
    parts = _parts(also, corpus, len(chosen), width, source)
    provenance = {
        "model": model.metadata,
        "corpus": corpus_metadata(corpus),
        "form": "text" if isinstance(model, Encoder) else form,
        "excluded": model.excluded,
    }
    if model.attachments:  # what is read is then not the model as it is
        provenance["edited"] = True
    if derange is not None:
        provenance["deranged"] = derange
    moments = Moments(
        corpus.langs,
        chosen,
        width,
        site=site,
        scatter="scatter" in parts,
        clouds="clouds" in parts,
        sample=SAMPLE if "sample" in parts else 0,
        pairs_from=source if "pairs" in parts else None,
        provenance=provenance,
    )
    with bar(progress=progress) as display:
        task = display.add_task("reading", total=sum(map(len, corpus.lines.values())))
        reader = InOrder(model)
        for start in range(0, len(corpus), batch):
            # The same lines of all languages together, since pairs need the texts' means at once.
            means: dict[str, Tensor] = {}
            for lang in corpus.langs:
                lines = corpus[lang][start : start + batch]
                if lines:
                    ids = tokens_of(model, lang, lines, form)
                    means[lang] = _read(reader, moments, lang, ids)
                    display.advance(task, len(lines))
            if moments.pairs is not None:
                # Another permutation for each batch, and the same ones in every run.
                seed = None if derange is None else derange + start
                _add_pairs(moments.pairs, means, seed)
    moments.provenance["tokens"] = int(moments.count.sum())
    return moments


def _parts(
    also: Sequence[str] | None, corpus: Corpus, layers: int, width: int, source: str
) -> tuple[str, ...]:
    """The statistics to gather: what was asked for, or each that is small and possible."""
    langs = len(corpus.langs)
    sizes = {  # bytes: scatter is summed in float64, the others are kept in float32
        "scatter": 8 * layers * width**2,
        "clouds": 4 * langs * layers * width**2,
        "sample": 4 * SAMPLE * langs * layers * width,
        "pairs": 4 * langs * layers * width * (width + PAIRS),
    }
    if also is None:
        has_pairs = corpus.aligned and source in corpus.langs
        possible = [part for part in PARTS if part != "pairs" or has_pairs]
        return tuple(part for part in possible if sizes[part] <= FREE_BYTES)
    if unknown := [part for part in also if part not in PARTS]:
        raise SteerlabError(f"there is no statistic {unknown[0]!r}; also= takes {', '.join(PARTS)}")
    if "pairs" in also:
        corpus.need_aligned("collecting pairs")
        corpus[source]  # raises where the corpus has no such language
    if (total := sum(sizes[part] for part in also)) > FREE_BYTES:
        Console(stderr=True).print(
            f"the statistics {', '.join(also)} will take {total / 2**30:.1f} GiB of memory"
        )
    return tuple(also)


def _add_pairs(pairs: Paired, means: Mapping[str, Tensor], seed: int | None) -> None:
    """Add the means of aligned texts to the pairs; with a seed, each text of the source takes part
    in the pairs of another."""
    if seed is not None:
        of_source = means[pairs.source]
        if len(of_source) < 2:
            return  # one text alone has no other to be paired with
        means = {**means, pairs.source: of_source[derangement(len(of_source), seed)]}
    pairs.update(means)


def _read(
    reader: InOrder, moments: Moments, lang: str, ids: list[list[int]]
) -> Float[Tensor, "text layer width"]:
    """Add texts of one language to the moments; the result is each text's mean, in the order of the
    texts."""
    model = reader.model
    need_room(model, ids)
    names = {layer: hook_name(moments.site, layer) for layer in moments.layers}

    def work(rows: Sequence[int]) -> tuple[dict[str, Tensor], Tensor]:
        activations: dict[str, Tensor] = {}
        hooks = [(moments.site, layer, _keep(activations, name)) for layer, name in names.items()]
        text = read(model, [ids[row] for row in rows], hooks).cpu()
        return activations, text

    # Added only when a pass is over: one that runs out of memory is run again, in halves.
    passes = reader.run(ids, work)
    return torch.cat([moments.update(lang, activations, text) for activations, text in passes])


def _keep(activations: dict[str, Tensor], name: str) -> HookFn:
    """A function that keeps the activations it sees under this name."""

    def look(h: Tensor, _: Positions) -> None:
        activations[name] = h

    return look


@torch.inference_mode()
def text_means(
    model: Any,
    corpus: Corpus,
    *,
    layers: Iterable[int] | None = None,
    site: str = "resid_post",
    form: str = "line",
) -> dict[str, Float[Tensor, "text layer width"]]:
    """The mean vector of every text, by language, `[text layer width]`.

    It is for small corpora, since a vector for every text is kept.

    Args:
        model: what `load` takes.
        corpus: the lines to read, in each language.
        layers: which layers to read; by default all.
        site: where in a layer.
        form: how a line becomes a prompt, such as line or chat.
    """
    model = load(model)
    chosen = chosen_layers(model, layers)
    reader = InOrder(model)
    means: dict[str, Tensor] = {}
    for lang in corpus.langs:
        # Moments give each text's mean as they are updated; what they sum up is thrown away.
        scratch = Moments((lang,), chosen, model.width_of(site), site=site)
        ids = tokens_of(model, lang, corpus[lang], form)
        parts = [
            _read(reader, scratch, lang, ids[start : start + TEXTS])
            for start in range(0, len(ids), TEXTS)
        ]
        means[lang] = torch.cat(parts)
    return means
