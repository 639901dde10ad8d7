"""What the templates of a card show: the numbers of a feature, ready to be written."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from steerlab.core.corpus import Corpus
from steerlab.core.languages import language
from steerlab.models.model import Model
from steerlab.sae import SAE
from steerlab.studies.feature_card.reading import Example, Reading

_LEFTWARDS = ("Arab", "Hebr")
_OPAQUE = 0.9  # the shade of the largest value: ink still reads on it
_SIGNS = {" ": "·", "\n": "↵", "\t": "⇥"}  # what stands for a character that cannot be seen


@dataclass(frozen=True)
class Origin:
    """What was read, for the line under the title."""

    model: str
    hook: str
    kind: str
    latents: int
    release: list[str]
    texts: int
    corpus: str


@dataclass(frozen=True)
class Piece:
    """A piece of a text, shaded by the feature's value; no shade where it is off."""

    text: str
    value: float
    shade: float | None


@dataclass(frozen=True)
class Text:
    """A text on which the feature fires, with the side from which it is read."""

    lang: str
    language: str
    side: str
    top: float
    pieces: list[Piece]


@dataclass(frozen=True)
class LanguageRow:
    """The rate and the mean value of the feature in a language, each also as a share of the
    largest of all languages."""

    name: str
    rate: float
    level: float
    rate_share: float
    level_share: float


@dataclass(frozen=True)
class Glyph:
    """Letters of a token as they are, or the sign of one that cannot be seen."""

    text: str
    sign: bool


@dataclass(frozen=True)
class Token:
    """A token with its logit effect, and the size of that as a share of the card's largest."""

    glyphs: list[Glyph]
    effect: float
    share: float


@dataclass(frozen=True)
class CardView:
    """All that a card shows; languages with the highest rate first."""

    unit: int
    overall: float
    top: float
    norm: float
    tokens: int
    texts: list[Text]
    languages: list[LanguageRow]
    raised: list[Token]
    lowered: list[Token]
    neighbours: list[tuple[int, float]]


def origin(model: Model, corpus: Corpus, sae: SAE) -> Origin:
    """The model (a local one without the path to it), the autoencoder and the corpus."""
    local = "/" in model.name and Path(model.name).exists()
    return Origin(
        model=Path(model.name).name if local else model.name,
        hook=sae.hook,
        kind=sae.kind,
        latents=sae.latents,
        release=[str(sae.about[key]) for key in ("release", "id") if sae.about.get(key)],
        texts=sum(map(len, corpus.lines.values())),
        corpus=corpus.name,
    )


def card_view(
    unit: int,
    reading: Reading,
    raised: Sequence[tuple[str, float]],
    lowered: Sequence[tuple[str, float]],
    neighbours: Sequence[tuple[int, float]],
    norm: float,
) -> CardView:
    """Gather what was measured of a feature."""
    largest = max((abs(effect) for _, effect in [*raised, *lowered]), default=1.0) or 1.0
    return CardView(
        unit=unit,
        overall=reading.overall,
        top=reading.top,
        norm=norm,
        tokens=sum(reading.tokens.values()),
        texts=[_text(example, reading.top) for example in reading.examples],
        languages=_languages(reading),
        raised=[Token(glyphs(text), effect, abs(effect) / largest) for text, effect in raised],
        lowered=[Token(glyphs(text), effect, abs(effect) / largest) for text, effect in lowered],
        neighbours=list(neighbours),
    )


def glyphs(token: str) -> list[Glyph]:
    """A token cut into what can be seen and the signs of what cannot."""
    parts = re.findall(r"[^ \n\t]+|[ \n\t]", token)
    return [Glyph(_SIGNS.get(part, part), part in _SIGNS) for part in parts]


def _text(example: Example, top: float) -> Text:
    entry = language(example.language)
    pieces = [_piece(text, value, top) for text, value in example.pieces]
    return Text(
        lang=entry.iso,
        language=entry.name,
        side="rtl" if entry.script in _LEFTWARDS else "ltr",
        top=example.top,
        pieces=pieces,
    )


def _piece(text: str, value: float, top: float) -> Piece:
    """The line break at the end of a text is only shown where the feature is on."""
    is_end = text.strip(" ") == "\n"
    if value <= 0:
        return Piece("" if is_end else text, value, None)
    return Piece("↵" if is_end else text, value, _OPAQUE * min(value / top, 1.0))


def _languages(reading: Reading) -> list[LanguageRow]:
    # A feature that is never on has bars of no length, not a division by zero.
    rates = max(*reading.rate.values(), 1e-12)
    levels = max(*reading.level.values(), 1e-12)
    return [
        LanguageRow(
            name=language(lang).name,
            rate=reading.rate[lang],
            level=reading.level[lang],
            rate_share=reading.rate[lang] / rates,
            level_share=reading.level[lang] / levels,
        )
        for lang in sorted(reading.rate, key=lambda lang: -reading.rate[lang])
    ]
