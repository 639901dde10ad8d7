"""Which latents move the next token's probability towards a language when they are switched on:
FOXP2's stage I."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.core.corpus import Corpus
from steerlab.core.errors import SteerlabError
from steerlab.core.firing import Firing, Lift
from steerlab.core.progress import bar
from steerlab.edits import Edit, Part
from steerlab.edits.operators import shift
from steerlab.engine.inputs import corpus_metadata
from steerlab.engine.language_mass import Lexicon, gold_masses, language_masses
from steerlab.engine.prompts import prompt
from steerlab.engine.requirements import need_sae, need_source, need_words
from steerlab.estimate.units import Selection
from steerlab.estimate.units.controls import need_of
from steerlab.models.loading import load
from steerlab.models.model import Model
from steerlab.sae import SAE

STRENGTHS = (1.0, 2.0, 4.0)


def causal_lift(
    model: Any,
    corpus: Corpus,
    saes: Mapping[int, SAE],
    candidates: Selection,
    words: Lexicon,
    *,
    firing: Firing,
    source: str = "en",
    strengths: Sequence[float] = STRENGTHS,
    form: str = "line",
    batch: int | None = None,
    progress: bool | None = None,
) -> Lift:
    """What each candidate latent, switched on everywhere in the source's sentences, does to each
    language's mass.

    Formula: h + strength · a_j W_dec[j] at the latent's layer and all positions but BOS, a_j the
    latent's mean value over the tokens of `firing` at which it is on, so that strength 1 is as on
    as it is where it is on. The effect is the mean over sentences of Δ(M_target - M_source), M the
    language masses after the last token; the slope is the median over strengths of effect /
    strength. A latent that several languages share runs once and is read for all.

    The sentences of `source` are the prompts; in the form `line` they name no language. The lexicon
    must be good for the corpus (`need_gold`). Source: Neural FOXP2 stage I (arXiv 2602.00945),
    whose strengths are absolute values of latents and whose mass is read over one to three greedy
    steps; here over one.

    Args:
        model: what `load` takes.
        corpus: aligned texts; the source's are the prompts.
        saes: the autoencoder of each layer.
        candidates: the latents that are tried.
        words: which tokens are each language's own.
        firing: how strongly the latents are on in text.
        source: the language of the prompts.
        strengths: of each latent, in its own mean values.
        form: how a sentence becomes a prompt, such as line or chat.
        batch: the most rows that run together; by default as many as memory advises.
        progress: show how far it is; by default in a terminal and in a notebook.
    """
    model = load(model)
    needed = _need(model, saes, candidates, words, source=source, strengths=strengths)
    scale = _scale(firing)[need_of(candidates, firing)]
    gold = need_gold(model, corpus.select(candidates.langs), words, batch=batch)
    prompts = [prompt(model.tokenizer, form, line, source=source) for line in corpus[source]]
    columns = [words.langs.index(lang) for lang in candidates.langs]
    origin = words.langs.index(source)
    effect = torch.full((*candidates.chosen.shape, len(strengths)), float("nan"))
    with bar(progress=progress) as display:
        for layer, sae in display.track(needed.items(), description="lifting"):
            index = candidates.layers.index(layer)
            units = candidates.chosen[:, index].any(0).nonzero()[:, 0].tolist()
            steps = scale[index, units, None] * sae.W_dec[units].cpu()
            edits = [
                _switched_on(model, sae, strength * step)
                for step, strength in product(steps, strengths)
            ]
            gain = language_masses(model, prompts, edits, words, batch=batch).gain.mean(1)
            moved = (gain[:, columns] - gain[:, [origin]]).T
            effect[:, index, units] = moved.unflatten(1, (len(units), len(strengths)))
    slope = _median(effect / torch.tensor(list(strengths)))
    provenance = {
        "model": model.metadata,
        "corpus": corpus_metadata(corpus),
        "form": form,
        "candidates": candidates.method,
    }
    provenance |= {
        "positions": "all",
        "unit": "mean value where it is on",
        "saes": [sae.digest for sae in needed.values()],
    }
    provenance |= {"tokens": {lang: words.sizes[lang] for lang in candidates.langs}}
    provenance |= {
        "gold": dict(zip(candidates.langs, gold[range(len(gold)), columns].tolist(), strict=True))
    }
    return Lift(
        candidates.langs,
        candidates.layers,
        source,
        tuple(map(float, strengths)),
        slope,
        effect,
        provenance,
    )


def need_gold(
    model: Any, corpus: Corpus, words: Lexicon, *, batch: int | None = None
) -> Float[Tensor, "spoken lang"]:
    """The mean masses of every language's text, of which its own must be the highest; else raise
    and show samples.

    A lexicon that fails where it is known what is spoken says nothing where it is not.
    """
    need_words(words, corpus.langs)
    gold, wrong = gold_masses(model, corpus, words, batch=batch), []
    for spoken, row in zip(corpus.langs, gold, strict=True):
        heaviest = words.langs[int(row.argmax())]
        if heaviest != spoken:
            own, most = float(row[words.langs.index(spoken)]), float(row.max())
            shown = {lang: words.sample(lang) for lang in (spoken, heaviest)}
            wrong.append(
                f"text of {spoken} has mass {own:.3f} of its own and {most:.3f} of {heaviest}; "
                f"tokens: {shown}"
            )
    if wrong:
        raise SteerlabError(
            f"the lexicon does not tell languages apart where they are known: {'; '.join(wrong)}; "
            "make it from more "
            "text, or of fewer languages"
        )
    return gold


def _scale(firing: Firing) -> Float[Tensor, "layer unit"]:
    """The mean value of each unit over all tokens at which it is on."""
    return (firing.total.sum(0) / firing.on.double().sum(0).clamp(min=1)).float()


def _median(values: Float[Tensor, "*any value"]) -> Float[Tensor, "*any"]:
    """Over the last axis; of an even number the mean of the middle two, which torch's own is
    not."""
    ordered, count = values.sort(-1).values, values.shape[-1]
    return (ordered[..., (count - 1) // 2] + ordered[..., count // 2]) / 2


def _switched_on(model: Model, sae: SAE, step: Tensor) -> Edit:
    part = Part(shift, "add", sae.site, sae.layer, "all", {"shift": step[None]}, identity=False)
    return Edit((part,), model.metadata)


def _need(
    model: Model,
    saes: Mapping[int, SAE],
    candidates: Selection,
    words: Lexicon,
    *,
    source: str,
    strengths: Sequence[float],
) -> dict[int, SAE]:
    """The autoencoders of the layers that have candidates; whatever would fail after a long run
    fails here."""
    if not strengths or not all(0 < abs(strength) < float("inf") for strength in strengths):
        raise SteerlabError(
            f"the strengths are {list(strengths)}; give finite numbers other than 0"
        )
    need_source(candidates, source)
    need_words(words, candidates.langs)
    layers = [
        layer
        for layer, some in zip(candidates.layers, candidates.chosen.any(0).any(-1), strict=True)
        if some
    ]
    if not layers:
        raise SteerlabError(
            "there is no candidate to try; choose some first: candidates(firing, source=...)"
        )
    needed = {layer: need_sae(saes, layer, candidates) for layer in layers}
    for sae in needed.values():
        sae.need(model)
    return needed
