"""One streaming pass of a corpus through a model, into statistics."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from steerlab.core.corpus import Corpus
from steerlab.core.errors import SteerlabError
from steerlab.core.moments import PAIRS, PARTS, Moments, derangement
from steerlab.core.sites import hook_name
from steerlab.engine.batching import InOrder
from steerlab.engine.forward import read
from steerlab.engine.inputs import chosen_layers, corpus_metadata, need_room, tokens_of
from steerlab.models.loading import load
from steerlab.models.positions import HookFn, Positions

SAMPLE = PAIRS  # token vectors a language in the reservoir
TEXTS = 64  # of one language that are read together
FREE_BYTES = 256 * 2**20  # statistics up to this size are gathered unasked


@torch.inference_mode()
def collect(
    model: Any,
    corpus: Corpus,
    *,
    layers: Iterable[int] | None = None,
    site: str = "resid_post",
    also: Sequence[str] | None = None,
    source: str = "en",
    derange: int | None = None,
    form: str = "line",
    batch: int = TEXTS,
    progress: bool = False,
) -> Moments:
    """Read every line of the corpus once and keep moments per language; BOS and padding do not
    count.

    `also` names what to gather beside count and means: `scatter` (width² per layer, for `lda` and
    `leace`), `clouds` (width² per layer and language, for `ellipsoid`), `sample` (for `probe` and
    the shrinkage of `lda`), `pairs` (from `source`; width² per layer and language, for `pca` and
    `eigengap`; needs an aligned corpus). Without it, whatever fits in 256 MB. Larger requests print
    their memory first. `derange`, a seed, pairs each sentence of the source with the translation of
    another of its batch: what paired methods find without pairs.
    """
    model = load(model)
    chosen = chosen_layers(model, layers)
    width = model.width_of(site)
    parts = _parts(also, corpus, len(chosen), width, source)
    provenance = {
        "model": model.metadata,
        "corpus": corpus_metadata(corpus),
        "form": form,
        "excluded": "BOS and padding",
    }
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
    with Progress(console=Console(stderr=True), disable=not progress, transient=True) as bar:
        task = bar.add_task("reading", total=sum(map(len, corpus.lines.values())))
        reader = InOrder(model)
        for start in range(0, len(corpus), batch):
            means: dict[str, Tensor] = {}
            for lang in corpus.langs:
                lines = corpus[lang][start : start + batch]
                if lines:
                    ids = tokens_of(model, lang, lines, form)
                    means[lang] = _read(reader, moments, lang, ids)
                    bar.advance(task, len(lines))
            if moments.pairs is not None and (derange is None or len(means[source]) > 1):
                if derange is not None:
                    means[source] = means[source][derangement(len(means[source]), derange + start)]
                moments.pairs.update(means)
    moments.provenance["tokens"] = int(moments.count.sum())
    return moments


def _parts(
    also: Sequence[str] | None, corpus: Corpus, layers: int, width: int, source: str
) -> tuple[str, ...]:
    sizes = {
        "scatter": 8 * layers * width**2,
        "clouds": 4 * len(corpus.langs) * layers * width**2,
        "sample": 4 * SAMPLE * len(corpus.langs) * layers * width,
        "pairs": 4 * len(corpus.langs) * layers * width * (width + PAIRS),
    }
    if also is None:
        able = [
            part for part in PARTS if part != "pairs" or (corpus.aligned and source in corpus.langs)
        ]
        return tuple(part for part in able if sizes[part] <= FREE_BYTES)
    if unknown := [part for part in also if part not in PARTS]:
        raise SteerlabError(f"there is no statistic {unknown[0]!r}; also= takes {', '.join(PARTS)}")
    if "pairs" in also:
        corpus.need_aligned("collecting pairs")
        corpus[source]
    if (total := sum(sizes[part] for part in also)) > FREE_BYTES:
        Console(stderr=True).print(
            f"the statistics {', '.join(also)} will take {total / 2**30:.1f} GiB of memory"
        )
    return tuple(also)


def _read(
    reader: InOrder, moments: Moments, lang: str, ids: list[list[int]]
) -> Float[Tensor, "text layer width"]:
    """Feed texts of one language to the moments; each text's mean comes back in the order of the
    texts."""
    model = reader.model
    need_room(model, ids)
    names = {layer: hook_name(moments.site, layer) for layer in moments.layers}

    def work(rows: Sequence[int]) -> tuple[dict[str, Tensor], Tensor]:
        seen: dict[str, Tensor] = {}
        looks = [(moments.site, layer, _keep(seen, name)) for layer, name in names.items()]
        return seen, read(model, [ids[row] for row in rows], looks).cpu()

    return torch.cat([moments.update(lang, seen, text) for seen, text in reader.run(ids, work)])


def _keep(seen: dict[str, Tensor], name: str) -> HookFn:
    """What looks at activations and keeps them by this name."""

    def look(h: Tensor, _: Positions) -> None:
        seen[name] = h

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
    """The mean vector of every text, by language: small corpora only, since nothing is summed
    up."""
    model = load(model)
    chosen = chosen_layers(model, layers)
    reader = InOrder(model)
    means: dict[str, Tensor] = {}
    for lang in corpus.langs:
        scratch = Moments((lang,), chosen, model.width_of(site), site=site)
        ids = tokens_of(model, lang, corpus[lang], form)
        parts = [
            _read(reader, scratch, lang, ids[start : start + TEXTS])
            for start in range(0, len(ids), TEXTS)
        ]
        means[lang] = torch.cat(parts)
    return means
