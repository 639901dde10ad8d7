"""What objects say of themselves: one line each, and for a notebook HTML that is whole, escaped and
needs nothing from elsewhere."""

import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest
import torch
from test_saved import KEPT

import steerlab as sl
from steerlab.core.corpus import Corpus, corpus
from steerlab.core.display import Shown, View, bars, card, counted, heat, listed, ranges
from steerlab.models.model import Model
from steerlab.sae.autoencoder import SAE

EVIL = '<script>alert("1")</script>&\'"'
VOID = {"br", "hr", "img"}


class Whole(HTMLParser):
    """Every tag is closed, in order; names and attributes are kept."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.words: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def sae(**more: Any) -> SAE:
    random = torch.Generator().manual_seed(0)
    encoder, bias, decoder, centre = (
        torch.randn(*size, generator=random) for size in ((4, 9), (9,), (9, 4), (4,))
    )
    return SAE(encoder, bias, decoder, centre, "topk", 2, "resid_post", k=3, **more)


@pytest.fixture(scope="module")
def shown(polyglot: Model, directions: Any, moments: Any) -> dict[str, Any]:
    return {
        **{name: make() for name, make in KEPT.items()},
        "model": polyglot,
        "corpus": corpus(),
        "directions": directions,
        "direction": directions.between("en", "es").at(5),
        "towards": directions["es"],
        "of a model": moments,
        "sae": sae(),
        "many layers": sl.add(directions.between("en", "es")),
    }


NAMES = [*KEPT, *"model corpus directions direction towards sae".split(), "of a model"]
every = pytest.mark.parametrize("name", [*NAMES, "many layers"])


@every
def test_one_line_says_what_it_is(shown: dict[str, Any], name: str) -> None:
    line = repr(shown[name])
    assert len(line) <= 160
    assert "\n" not in line
    assert type(shown[name]).__name__.removesuffix("Model") in line or name == "model"
    assert "object at 0x" not in line
    assert "tensor(" not in line


LINES = {
    "model": r"Model polyglot: 8 layers of width 256, 12,288 tokens, [\d,]+ parameters, float32 on",
    "corpus": r"Corpus 'parallel': 16 languages \(bg de en es fr … uk\), 240 lines each, aligned$",
    "directions": r"Directions by diffmean: 5 languages \(en de es fr ru\), layers 0–7 of resid_",
    "direction": r"Direction en → es: layer 5 of resid_post, gap \d",
    "towards": r"Direction the other languages → es: layers 0–7 of resid_post, gaps \d",
    "edit": r"Edit: a stack of 3 rows: .*add at ",
    "no edit": r"Edit: none: the model as it is$",
    "many layers": r"Edit: add at layers 0–7 of resid_post$",
    "selection": r"Selection by lape: \d+ of 7 units a layer, layers 1, 4 of mlp_post, 3 languages",
    "firing on noise": r"Firing: 7 units a layer, .* 30 tokens on random tokens$",
    "moments with all": r"Moments: .* 180 tokens of 36 texts, with scatter, clouds, sample, pairs$",
    "sae": r"SAE \(topk, k = 3\): 9 latents of width 4, at layer 2 of resid_post$",
}


@pytest.mark.parametrize("name", LINES)
def test_the_line_holds_what_matters(shown: dict[str, Any], name: str) -> None:
    assert re.match(LINES[name], repr(shown[name])), repr(shown[name])


@every
def test_html_is_whole_small_and_needs_nothing(shown: dict[str, Any], name: str) -> None:
    html = shown[name]._repr_html_()
    page = Whole(html)
    assert page.tags <= {"div", "table", "tr", "td", "th", "svg", "rect", "text", "title"}
    assert not page.attributes & {"src", "href", "onload", "onclick", "class", "id"}
    assert "url(" not in html
    assert len(html) < 60_000
    assert html.count("<rect") or name in ("edit", "no edit", "direction"), "there is a picture"


@every
def test_colours_are_the_page_s_own(shown: dict[str, Any], name: str) -> None:
    """On black, black text would not be seen: nothing sets a background or a colour of text."""
    html = shown[name]._repr_html_()
    assert "background" not in html
    assert set(re.findall(r'fill="([^"]+)"', html)) <= {"currentColor", "#3d85c6"}
    assert not re.search(r"[^-]color:", html)


def test_what_a_user_named_is_escaped() -> None:
    corpus = Corpus(EVIL, {"en": (EVIL,), "de": (EVIL,)}, (0,))
    odd = [corpus, sae(about={"model": EVIL, "release": EVIL})]
    for each in odd:
        html = each._repr_html_()
        assert "script" not in Whole(html).tags
        assert EVIL in " ".join(Whole(html).words)
    for picture in (bars({EVIL: 1.0}), heat([[1.0]], [EVIL], [EVIL])):
        assert "script" not in Whole(picture).tags


@pytest.mark.parametrize(
    "picture",
    [
        lambda: bars({}),
        lambda: bars({"a": 0.0, "b": float("nan"), "c": float("-inf")}),
        lambda: heat([], [], []),
        lambda: heat([[float("nan"), 1.0], [1.0, 1.0]], ["a", "b"], [0, 1]),
        lambda: bars({str(n): float(n) for n in range(500)}),
    ],
)
def test_pictures_of_odd_numbers(picture: Callable[[], str]) -> None:
    svg = picture()
    Whole(svg)
    numbers = re.findall(r'\b(?:width|height|x|y|fill-opacity)="([^"]+)"', svg)
    assert all(float(number) >= 0 for number in numbers)


def test_a_larger_number_has_a_higher_bar_and_a_darker_cell() -> None:
    heights = [float(x) for x in re.findall(r'height="([\d.]+)" fill', bars({"a": 1, "b": 2}))]
    assert heights[1] == 2 * heights[0] > 0
    shades = re.findall(r'opacity="([\d.]+)"', heat([[1.0, 2.0, 3.0]], ["a"], [0, 1, 2]))
    assert [float(shade) for shade in shades] == sorted(map(float, shades))
    assert shades[0] != shades[1] != shades[2]


def test_long_tables_and_lines_are_cut() -> None:
    class Long(Shown):
        def _view(self) -> View:
            return View("Long", "x" * 1000, head=("a",), rows=[(n,) for n in range(100)])

    assert len(repr(Long())) == 160
    assert card(Long()._view()).count("<tr>") == 26
    assert "and 76 more" in card(Long()._view())


def test_words_for_lists() -> None:
    assert ranges([3, 1, 2, 7]) == "1–3, 7"
    assert ranges([]) == ""
    assert listed("abcdefgh") == "a b c d e … h"
    assert counted(1, "layer") == "1 layer"
    assert counted(1204, "layer") == "1,204 layers"
