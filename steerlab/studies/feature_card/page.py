"""Cards as pages of HTML: everything is in the page, nothing is fetched, and no script runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from steerlab.core.corpus import Corpus
from steerlab.core.display import Page
from steerlab.core.errors import SteerlabError
from steerlab.core.files import explained, need_ending, need_folder, write_text
from steerlab.models.loading import load
from steerlab.models.model import Model
from steerlab.sae import SAE
from steerlab.studies.feature_card.logits import logit_effects, neighbours, promoted
from steerlab.studies.feature_card.reading import read
from steerlab.studies.feature_card.view import CardView, card_view, origin
from steerlab.studies.html import environment


def feature_card(
    model: Any,
    corpus: Corpus,
    sae: SAE,
    unit: int,
    *,
    texts: int = 10,
    tokens: int = 10,
    nearest: int = 8,
    batch: int = 64,
) -> Page:
    """One feature of an SAE as a page of HTML that needs nothing else; a notebook shows it.

    It has, by language, the share of tokens at which the feature is on and its mean value; the
    `texts` of the corpus on which it is largest, each token shaded by its value; the `tokens` that
    its decoder row raises and lowers most through the unembedding (`logits.logit_effects` says
    how); the row's norm and the `nearest` other features by cosine. Raises for a feature that is
    not there and for an SAE of another model.

    Args:
        model: what `load` takes.
        corpus: the texts on which the feature is read.
        sae: the autoencoder.
        unit: the feature's number.
        texts: how many texts are shown.
        tokens: how many tokens that it raises, and that it lowers.
        nearest: how many other features are named.
        batch: the most texts that are read together.
    """
    model = load(model)
    cards = _cards(
        model, corpus, sae, [unit], texts=texts, tokens=tokens, nearest=nearest, batch=batch
    )
    return Page(_page(model, corpus, sae, cards[0], linked=()))


def feature_cards(
    model: Any,
    corpus: Corpus,
    sae: SAE,
    units: Sequence[int],
    folder: str | Path,
    *,
    texts: int = 10,
    tokens: int = 10,
    nearest: int = 8,
    batch: int = 64,
    force: bool = False,
) -> Path:
    """Write the cards of several features and an `index.html` that lists them; gives the index.

    The corpus is read once for all. Files appear whole or not at all. The rest is as in
    `feature_card`.

    Args:
        model: what `load` takes.
        corpus: the texts on which the features are read.
        sae: the autoencoder.
        units: the features' numbers.
        folder: where the pages are written.
        texts: how many texts each shows.
        tokens: how many tokens that each raises, and that it lowers.
        nearest: how many other features each names.
        batch: the most texts that are read together.
        force: replace pages that steerlab did not write.
    """
    if not units:
        raise SteerlabError(
            "no feature was named; name at least one, such as those of Selection.of(language, "
            "layer)"
        )
    folder = need_folder(folder)
    model, units = load(model), list(dict.fromkeys(units))
    cards = _cards(
        model, corpus, sae, units, texts=texts, tokens=tokens, nearest=nearest, batch=batch
    )
    for card in cards:
        page = _page(model, corpus, sae, card, linked=units)
        write(folder / f"{card.unit}.html", page, force=force)
    return write(folder / "index.html", _index(model, corpus, sae, cards), force=force)


def write(file: Path, page: str, *, force: bool = False) -> Path:
    """Write a page, whole or not at all; `force` replaces a file that steerlab did not write."""
    need_ending(file, ".html")
    with explained(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, page, force=force)
    return file


def _cards(
    model: Model,
    corpus: Corpus,
    sae: SAE,
    units: Sequence[int],
    *,
    texts: int,
    tokens: int,
    nearest: int,
    batch: int,
) -> list[CardView]:
    sae.need(model)
    if wrong := [unit for unit in units if not 0 <= unit < sae.latents]:
        raise SteerlabError(
            f"there is no feature {wrong[0]}; this autoencoder has features 0 to {sae.latents - 1}"
        )
    if min(texts, tokens, batch) < 1 or nearest < 0:
        raise SteerlabError(
            f"a card needs 1 text, token and row or more; given texts={texts} tokens={tokens} "
            f"{batch=}"
        )
    readings = read(model, corpus, sae, units, texts=texts, batch=batch)
    rows = sae.W_dec[list(units)].cpu()
    effects = logit_effects(model, rows)
    cards = []
    for unit, reading, effect, row in zip(units, readings, effects, rows, strict=True):
        raised, lowered = promoted(model, effect, tokens)
        like = neighbours(sae, unit, nearest)
        cards.append(card_view(unit, reading, raised, lowered, like, float(row.norm())))
    return cards


def _page(model: Model, corpus: Corpus, sae: SAE, card: CardView, *, linked: Sequence[int]) -> str:
    """`linked`: the features that have a card in the same folder."""
    return _render(
        "card.html.jinja",
        title=f"Feature {card.unit}, layer {sae.layer}",
        origin=origin(model, corpus, sae),
        card=card,
        linked=linked,
    )


def _index(model: Model, corpus: Corpus, sae: SAE, cards: Sequence[CardView]) -> str:
    return _render(
        "index.html.jinja",
        title=f"{len(cards)} features, layer {sae.layer}",
        origin=origin(model, corpus, sae),
        cards=cards,
    )


def _render(template: str, **values: Any) -> str:
    return environment("steerlab.studies.feature_card").get_template(template).render(values)
