"""Tokens as text, coloured by the language that each position votes for."""

from collections.abc import Iterable
from html import escape
from typing import Any

from steerlab.core.display import Html
from steerlab.core.languages import language
from steerlab.figures.style import GREY, PALETTE

_FULL = 0.5  # the vote from which on a colour is as strong as it gets
_SHADES = (0.15, 0.6)  # of a colour, by the vote
_SHOWN = 3  # votes that the hover names


def tokens(generated: Iterable[Any]) -> Html:
    """What `sl.stream` gives, as text for a notebook: each token on the colour of the language with
    the most votes, the stronger the more; the hover has probability, votes and projection.

    The colours let the page through, so that the text is read on white and on black.

    Args:
        generated: tokens, which are read to their end.
    """
    listed = list(generated)
    heaviest: dict[str, float] = {}
    for token in listed:
        if token.lang is not None:
            heaviest[token.lang] = heaviest.get(token.lang, 0) + token.votes[token.lang]
    order = sorted(heaviest, key=lambda lang: -heaviest[lang])
    colors = {
        lang: PALETTE[rank] if rank < len(PALETTE) else GREY for rank, lang in enumerate(order)
    }
    text = "".join(_piece(token, colors) for token in listed)
    legend = " ".join(
        f'<span style="background:{_shade(colors[lang], _SHADES[1])};padding:0 4px">'
        f"{escape(language(lang).name)}</span>"
        for lang in order
    )
    return Html(
        '<div style="line-height:1.8"><div style="white-space:pre-wrap;overflow-wrap:anywhere">'
        f'{text}</div><div style="font-size:85%">{legend}</div></div>'
    )


def _piece(token: Any, colors: dict[str, str]) -> str:
    """One token, with what stood behind it."""
    facts = [f"probability {token.probability:.2f}"]
    votes = sorted(token.votes.items(), key=lambda vote: -vote[1])[:_SHOWN]
    facts += [f"{language(lang).name} {vote:.2f}" for lang, vote in votes]
    if token.projection is not None:
        facts.append(f"{token.projection:.2f} gaps along the direction")
    style = ""
    if token.lang is not None:
        share = min(1.0, token.votes[token.lang] / _FULL)
        alpha = _SHADES[0] + share * (_SHADES[1] - _SHADES[0])
        style = f' style="background:{_shade(colors[token.lang], alpha)}"'
    return f'<span title="{escape("; ".join(facts))}"{style}>{escape(token.text)}</span>'


def _shade(color: str, alpha: float) -> str:
    red, green, blue = (int(color[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha:.2f})"
