"""Cards as pages of HTML: everything is in the page, nothing is fetched, and no script runs."""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from steerlab.core.corpus import Corpus
from steerlab.core.errors import SteerlabError
from steerlab.core.files import need_ending
from steerlab.core.languages import LANGUAGES
from steerlab.models.loading import load
from steerlab.models.model import Model
from steerlab.sae import SAE
from steerlab.studies.feature_card.logits import logit_effects, neighbours, promoted
from steerlab.studies.feature_card.reading import Example, Reading, read

_DATA = Path(__file__).parents[2] / "data"
_LEFTWARDS = ("Arab", "Hebr")
_SHADE = "230, 159, 0"  # of Okabe and Ito's palette: ink reads on it at any strength
_OPAQUE = 0.9


@dataclass(frozen=True)
class Card:
    """All that a card shows."""

    unit: int
    reading: Reading
    raised: list[tuple[str, float]]
    lowered: list[tuple[str, float]]
    like: list[tuple[int, float]]
    norm: float


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
) -> str:
    """One feature of an SAE as a page of HTML that needs nothing else.

    It has, by language, the share of tokens at which the feature is on and its mean value; the
    `texts` of the corpus on which it is largest, each token shaded by its value; the `tokens` that
    its decoder row raises and lowers most through the unembedding (`logits.logit_effects` says
    how); the row's norm and the `nearest` other features by cosine. Raises for a feature that is
    not there and for an SAE of another model.
    """
    made = _cards(
        load(model), corpus, sae, [unit], texts=texts, tokens=tokens, nearest=nearest, batch=batch
    )
    return _page(load(model), corpus, sae, made[0], linked=())


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
) -> Path:
    """Write the cards of several features and an `index.html` that lists them; gives the index.

    The corpus is read once for all. Files appear whole or not at all. The rest is as in
    `feature_card`.
    """
    if not units:
        raise SteerlabError(
            "no feature was named; name at least one, such as those of Selection.of(language, "
            "layer)"
        )
    folder = need_ending(folder)
    model, units = load(model), list(dict.fromkeys(units))
    made = _cards(
        model, corpus, sae, units, texts=texts, tokens=tokens, nearest=nearest, batch=batch
    )
    for card in made:
        write(folder / f"{card.unit}.html", _page(model, corpus, sae, card, linked=units))
    return write(folder / "index.html", _index(model, corpus, sae, made))


def write(file: Path, page: str) -> Path:
    """Write a page, whole or not at all."""
    need_ending(file, ".html")
    fresh = file.with_name(f"{file.name}.new")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(page, "utf-8")
        os.replace(fresh, file)
    except OSError as error:
        with suppress(OSError):
            fresh.unlink()
        raise SteerlabError(
            f"could not write {file} ({error}); make room, or give another folder"
        ) from error
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
) -> list[Card]:
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
    return [
        Card(
            unit,
            reading,
            *promoted(model, effects, tokens),
            neighbours(sae, unit, nearest),
            float(row.norm()),
        )
        for unit, reading, effects, row in zip(
            units, readings, logit_effects(model, rows), rows, strict=True
        )
    ]


# -------------------------------------------------------------------------------------------- pages


def _page(model: Model, corpus: Corpus, sae: SAE, card: Card, *, linked: Sequence[int]) -> str:
    reading = card.reading
    facts = {
        "fires on": f"{_percent(reading.overall)} of tokens",
        "largest value": f"{reading.top:.3g}",
        "decoder norm": f"{card.norm:.3g}",
        "languages": str(len(reading.rate)),
        "tokens read": f"{sum(reading.tokens.values()):,}",
    }
    body = (
        "<dl "
        f"class='facts'>{''.join(f'<div><dt>{name}</dt><dd>{value}</dd></div>' for name, value in facts.items())}"
        f"</dl>{_examples(reading)}<div "
        f"class='columns'><section><h2>Languages</h2>{_languages(reading)}</section>"
        f"<section><h2>Logit effects</h2>{_logits(card)}<h2>Features like "
        f"it</h2>{_like(card, linked)}</section></div>"
    )
    title = f"Feature {card.unit}, layer {sae.layer}"
    back = "<nav><a href='index.html'>All features</a></nav>" if linked else ""
    return _whole(title, _byline(model, corpus, sae), back + body)


def _index(model: Model, corpus: Corpus, sae: SAE, made: Sequence[Card]) -> str:
    lines = "".join(
        f"<tr><th><a href='{card.unit}.html'>{card.unit}</a></th>"
        f"<td class='number'>{_percent(card.reading.overall)}</td>"
        f"<td>{_where(card.reading)}</td><td>{''.join(_token(text) for text, _ in card.raised[:6])}</td></tr>"
        for card in made
    )
    head = (
        "<tr><th>feature</th><th class='number'>fires on</th><th>most in</th><th>raises</th></tr>"
    )
    table = f"<table class='index'><thead>{head}</thead><tbody>{lines}</tbody></table>"
    return _whole(f"{len(made)} features, layer {sae.layer}", _byline(model, corpus, sae), table)


def _whole(title: str, byline: str, body: str) -> str:
    page = Template((_DATA / "card.html").read_text("utf-8"))
    return page.substitute(
        title=escape(title), byline=byline, body=body, css=(_DATA / "card.css").read_text("utf-8")
    )


def _byline(model: Model, corpus: Corpus, sae: SAE) -> str:
    name = (
        model.name
        if "/" not in model.name or not Path(model.name).exists()
        else Path(model.name).name
    )
    told = [
        f"<b>{escape(name)}</b>",
        f"<code>{escape(sae.hook)}</code>",
        f"{sae.kind} SAE of {sae.latents:,} features",
    ]
    told += [escape(str(sae.about[key])) for key in ("release", "id") if sae.about.get(key)]
    told.append(f"{sum(map(len, corpus.lines.values())):,} texts of {escape(corpus.name)}")
    return " · ".join(told)


def _examples(reading: Reading) -> str:
    if not reading.examples:
        return (
            "<section><h2>Top texts</h2><p class='note'>It is on at no token of these "
            "texts.</p></section>"
        )
    rows = "".join(_example(example, reading.top) for example in reading.examples)
    scale = (
        f"<p class='note scale'><span>0</span><i></i><span>{reading.top:.3g}</span> shade: the "
        "feature's value at a "
        "token; at the left its largest value in the text</p>"
    )
    return f"<section><h2>Top texts</h2><ol class='texts'>{rows}</ol>{scale}</section>"


def _example(example: Example, top: float) -> str:
    known = LANGUAGES[example.language]
    side = "rtl" if known.script in _LEFTWARDS else "ltr"
    shown = "".join(_piece(text, value, top) for text, value in example.pieces)
    return (
        f"<li><div class='about'><b>{example.top:.3g}</b>{known.name}</div>"
        f"<p class='text' lang='{known.iso}' dir='{side}'>{shown}</p></li>"
    )


def _piece(text: str, value: float, top: float) -> str:
    """A piece of a text, shaded by its value; the line break at its end is only shown where the
    feature is on."""
    ended = text.strip(" ") == "\n"
    if value <= 0:
        return "" if ended else escape(text)
    shown, strength = "↵" if ended else escape(text), _OPAQUE * min(value / top, 1.0)
    return (
        f"<mark style='background:rgba({_SHADE},{strength:.2f})' title='{value:.3g}'>{shown}</mark>"
    )


def _languages(reading: Reading) -> str:
    order = sorted(reading.rate, key=lambda iso: -reading.rate[iso])
    rates, levels = (max(max(values.values()), 1e-12) for values in (reading.rate, reading.level))
    rows = "".join(
        f"<tr><th>{LANGUAGES[iso].name}</th>"
        f"<td>{_bar(reading.rate[iso] / rates, _percent(reading.rate[iso]))}</td>"
        f"<td>{_bar(reading.level[iso] / levels, f'{reading.level[iso]:.3g}', second=True)}</td></tr>"
        for iso in order
    )
    head = "<tr><th></th><th>on at tokens</th><th>mean value</th></tr>"
    return f"<table class='bars'><thead>{head}</thead><tbody>{rows}</tbody></table>"


def _bar(share: float, label: str, *, second: bool = False) -> str:
    kind = " class='second'" if second else ""
    return (
        f"<svg width='110' height='13' role='img' aria-label='{label}'><rect width='110' "
        "height='13' class='track'/>"
        f"<rect width='{110 * share:.1f}' height='13'{kind}/></svg><span>{label}</span>"
    )


def _logits(card: Card) -> str:
    top = max((abs(effect) for _, effect in [*card.raised, *card.lowered]), default=1.0) or 1.0
    sides = "".join(
        f"<div><h3>{name}</h3><table "
        f"class='tokens'>{''.join(_effect(*one, top) for one in side)}</table></div>"
        for name, side in (("raises", card.raised), ("lowers", card.lowered))
    )
    note = (
        "The decoder row, scaled by the final norm's weight, times the unembedding, less the mean "
        "over all tokens: the "
        "direct path, without the norm's division by the size of the residual stream and without "
        "later layers."
    )
    return f"<div class='sides'>{sides}</div><p class='note'>{note}</p>"


def _effect(text: str, effect: float, top: float) -> str:
    width, kind = 60 * abs(effect) / top, "up" if effect > 0 else "down"
    bar = (
        f"<svg width='60' height='11' aria-hidden='true'><rect width='{width:.1f}' height='11' "
        f"class='{kind}'/></svg>"
    )
    return f"<tr><td>{_token(text)}</td><td>{bar}</td><td class='number'>{effect:+.2f}</td></tr>".replace(
        "-", "−"
    )


def _token(text: str) -> str:
    """A token in a box of its own, its spaces and line breaks to be seen."""
    shown = (
        escape(text).replace(" ", "<i>·</i>").replace("\n", "<i>↵</i>").replace("\t", "<i>⇥</i>")
    )
    return f"<bdi class='token'>{shown or '<i>empty</i>'}</bdi>"


def _like(card: Card, linked: Sequence[int]) -> str:
    named = [
        (f"<a href='{unit}.html'>{unit}</a>" if unit in linked else str(unit), cosine)
        for unit, cosine in card.like
    ]
    return (
        "<p class='like'>"
        + "".join(f"<span>{name} <small>{cosine:.2f}</small></span>" for name, cosine in named)
        + (
            "</p><p class='note'>The number of the feature and the cosine of the two decoder "
            "rows.</p>"
        )
    )


def _where(reading: Reading) -> str:
    order = sorted(reading.rate, key=lambda iso: -reading.rate[iso])[:3]
    return ", ".join(
        f"{LANGUAGES[iso].name} {_percent(reading.rate[iso])}" for iso in order if reading.rate[iso]
    )


def _percent(share: float) -> str:
    if share < 0.00005:
        return "under 0.01 %" if share else "0"
    return f"{100 * share:.2f} %" if share < 0.01 else f"{100 * share:.1f} %"
