"""A card says what the model does: rates and levels are counted again, logits by autograd,
characters stay whole."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import regex  # type: ignore[import-untyped]
import torch
from pages import Reader

from steerlab.core.corpus import Corpus
from steerlab.core.errors import SteerlabError
from steerlab.engine.prompts import encode
from steerlab.models.model import Model
from steerlab.sae import SAE
from steerlab.studies.feature_card import feature_card, feature_cards
from steerlab.studies.feature_card.logits import (
    folded,
    logit_effects,
    neighbours,
    promoted,
    written,
)
from steerlab.studies.feature_card.reading import Reading, pieces_of, read
from steerlab.studies.feature_card.view import Origin, card_view, glyphs
from steerlab.studies.html import environment

LAYER = 3


def made(width: int, *, kind: str = "relu", layer: int = LAYER, latents: int = 24) -> SAE:
    random = torch.Generator().manual_seed(0)
    encoder = torch.randn(width, latents, generator=random) / width**0.5
    more = {
        "relu": {},
        "topk": {"k": 4},
        "jumprelu": {"threshold": torch.rand(latents, generator=random)},
    }[kind]
    bias = 0.3 * torch.randn(latents, generator=random)
    center = 0.1 * torch.randn(width, generator=random)
    decoder = torch.randn(latents, width, generator=random)
    return SAE(encoder, bias, decoder, center, kind, layer, "resid_post", **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def few(lines: Corpus) -> Corpus:
    return lines.select(["en", "ru"]).take(5)


@torch.no_grad()
def states(model: Model, text: str) -> torch.Tensor:
    """What the block's output is at each token of a line but BOS, as Hugging Face tells it."""
    ids = torch.tensor(encode(model.tokenizer, [text + "\n"]))
    return model.hf(ids, output_hidden_states=True).hidden_states[LAYER + 1][0, 1:]


# ------------------------------------------------------------------------------------------ reading


@pytest.mark.parametrize("kind", ["relu", "jumprelu", "topk"])
def test_rates_levels_and_top_texts_are_those_of_the_model(
    kind: str, polyglot: Model, few: Corpus
) -> None:
    sae, units = made(polyglot.width, kind=kind), [7, 2]
    found = read(polyglot, few, sae, units, texts=3, batch=2)
    for number, unit in enumerate(units):
        tops = []
        for iso in few.langs:
            values = [sae.encode(states(polyglot, line))[:, unit] for line in few[iso]]
            every = torch.cat(values)
            assert found[number].tokens[iso] == len(every)
            assert found[number].rate[iso] == pytest.approx(
                float((every > 0).float().mean()), abs=1e-3
            )
            assert found[number].level[iso] == pytest.approx(
                float(every.mean()), rel=1e-3, abs=1e-4
            )
            tops += [
                (float(own.max()), iso, line) for own, line in zip(values, few[iso], strict=True)
            ]
        expected = sorted(tops, reverse=True)[:3]
        examples = found[number].examples
        assert [example.top for example in examples] == pytest.approx(
            [top for top, *_ in expected], rel=1e-3
        )
        told = [
            (example.language, "".join(text for text, _ in example.pieces)) for example in examples
        ]
        assert told == [(iso, line + "\n") for _, iso, line in expected]
        assert found[number].top == examples[0].top == max(value for _, value in examples[0].pieces)


def test_batches_do_not_matter(polyglot: Model, few: Corpus) -> None:
    sae = made(polyglot.width)
    one, other = (read(polyglot, few, sae, [3], texts=4, batch=batch)[0] for batch in (1, 64))
    assert one.rate == other.rate
    assert [e.pieces[0][0] for e in one.examples] == [e.pieces[0][0] for e in other.examples]


def test_a_text_is_shown_once_however_often_the_corpus_has_it(polyglot: Model) -> None:
    twice = Corpus("twice", {"en": ("The cat sleeps.",) * 3 + ("It rains.",)}, aligned=False)
    (found,) = read(polyglot, twice, made(polyglot.width), [3], texts=4, batch=2)
    assert len(found.examples) == 2


@pytest.mark.parametrize(
    "text",
    [
        "Die Straße ist naß.",
        "今日は天気がいい。",
        "हम नदी के किनारे सोए।",
        "السلام عليكم",
        "👩‍👩‍👧 ok",
        "e\u0301te\u0301",
        "a  b",
    ],
)
def test_pieces_are_whole_characters_and_lose_nothing(text: str, polyglot: Model) -> None:
    ids = polyglot.tokenizer(text + "\n", add_special_tokens=False).input_ids
    values = [float(place + 1) for place in range(len(ids))]
    pieces = pieces_of(polyglot.tokenizer, text, values)
    assert "".join(piece for piece, _ in pieces) == text + "\n"
    clusters = regex.findall(r"\X", text + "\n")
    assert sum(len(regex.findall(r"\X", piece)) for piece, _ in pieces) == len(clusters)
    assert pieces[-1] == ("\n", values[-1])
    kept = [value for _, value in pieces]
    assert kept == sorted(kept)
    assert kept[-1] == values[-1]


def test_pieces_of_one_character_have_its_largest_value(polyglot: Model) -> None:
    ids = polyglot.tokenizer("𒀀\n", add_special_tokens=False).input_ids
    assert len(ids) > 2, "a character that the tokenizer has in pieces"
    values = [1.0, 9.0, *[2.0] * (len(ids) - 3), 0.0]
    assert pieces_of(polyglot.tokenizer, "𒀀", values) == (("𒀀", 9.0), ("\n", 0.0))
    with pytest.raises(SteerlabError, match="has .* tokens and 1 values"):
        pieces_of(polyglot.tokenizer, "𒀀", [1.0])


# ------------------------------------------------------------------------------------------- logits


@pytest.mark.parametrize("shape", ["polyglot", "gemma2", "gpt2", "qwen2"])
def test_logit_effects_are_the_direction_in_which_logits_move(
    shape: str, shaped: Callable[[str], Model]
) -> None:
    """The head itself, at an h of ±1 that its norm leaves as it is: moved by ±ε row, where rows
    are orthogonal to h."""
    model = shaped(shape)
    h = torch.ones(model.width)
    h[1::2] = -1
    rows = torch.randn(3, model.width, generator=torch.Generator().manual_seed(1))
    rows = rows - rows.mean(-1, keepdim=True)
    rows = rows - (rows @ h)[:, None] / model.width * h
    head = model.hf.get_output_embeddings()
    parent = next(
        m for m in model.hf.modules() if any(child is model.blocks for child in m.children())
    )
    norm = [child for child in parent.children() if "norm" in type(child).__name__.lower()][-1]
    with torch.no_grad():
        ends = [head(norm((h + sign * 0.01 * rows)[None])[0]).float() for sign in (1, -1)]
    moved = (ends[0] - ends[1]) / 0.02
    expected = moved - moved.mean(-1, keepdim=True)
    found = logit_effects(model, rows)
    assert torch.allclose(found, expected, atol=2e-3 * float(expected.abs().max()))
    assert float(found.std()) > 1e-3


def test_a_norms_weight_is_read_off_what_it_does() -> None:
    weight = torch.rand(8) + 0.5
    norms: list[tuple[Any, bool]] = [(torch.nn.RMSNorm(8), False), (torch.nn.LayerNorm(8), True)]
    for norm, centres in norms:
        norm.weight = torch.nn.Parameter(weight, requires_grad=False)
        scale, found = folded(norm, 8, torch.device("cpu"), torch.float32)
        assert torch.allclose(scale, weight, atol=1e-4)
        assert found is centres


def test_promoted_tokens_are_the_extremes_and_no_special_ones(polyglot: Model) -> None:
    effects = torch.zeros(polyglot.vocabulary)
    word, other = (
        polyglot.tokenizer(text, add_special_tokens=False).input_ids[0] for text in (" the", " und")
    )
    effects[[word, other, polyglot.tokenizer.eos_token_id]] = torch.tensor([3.0, -2.0, 9.0])
    raised, lowered = promoted(polyglot, effects, 2)
    assert raised[:1] == [(" the", 3.0)]
    assert lowered[:1] == [(" und", -2.0)]
    assert len(raised) == len(lowered) == 2


def test_pieces_of_characters_are_written_as_their_bytes(polyglot: Model) -> None:
    ids = polyglot.tokenizer("𒀀", add_special_tokens=False).input_ids
    told = " ".join(written(polyglot.tokenizer, token) for token in ids)
    assert bytes(int(byte, 16) for byte in told.split()) == "𒀀".encode()
    assert (
        written(
            polyglot.tokenizer, polyglot.tokenizer(" the", add_special_tokens=False).input_ids[0]
        )
        == " the"
    )


def test_neighbours_are_by_cosine(polyglot: Model) -> None:
    sae = made(polyglot.width)
    sae.W_dec[5] = 3 * sae.W_dec[9] + 0.01 * sae.W_dec[5]
    unit, cosine = neighbours(sae, 9, 2)[0]
    assert unit == 5
    assert cosine == pytest.approx(1, abs=1e-3)
    assert len(neighbours(sae, 9, 99)) == 23


# --------------------------------------------------------------------------------------------- page


HOSTILE = "<script>alert('x')</script> & \"more\""
SCRIPTS = {"ar": ("السلام عليكم",), "ja": ("今日は天気がいい。",), "en": (HOSTILE,)}


def test_a_card_is_one_page_that_escapes_and_fetches_nothing(polyglot: Model) -> None:
    page = feature_card(
        polyglot,
        Corpus("a <b>", SCRIPTS, aligned=False),
        made(polyglot.width),
        4,
        texts=3,
        tokens=5,
    )
    read_page = Reader(page)
    assert not read_page.wrong
    assert not read_page.open
    assert not read_page.links
    assert "<script" not in page
    assert "://" not in page
    assert "a &lt;b&gt;" in page
    bare = "".join(read_page.text)
    assert HOSTILE in bare
    assert "السلام عليكم" in bare
    texts = [attrs for _, attrs in read_page.tags if attrs.get("class") == "text"]
    sides = {(attrs["lang"], attrs["dir"]) for attrs in texts}
    assert sides == {("ar", "rtl"), ("ja", "ltr"), ("en", "ltr")}
    assert "Feature 4, layer 3" in page
    assert f"blocks.{LAYER}.hook_resid_post" in page
    assert "of 24 features" in page


def test_shades_grow_with_the_value(polyglot: Model, few: Corpus) -> None:
    page = feature_card(polyglot, few, made(polyglot.width), 4, texts=2)
    shades = re.findall(r'style="--shade:([\d.]+)" title="([\d.e+-]+)"', page)
    assert len(shades) > 5
    top = max(float(value) for _, value in shades)
    assert all(
        float(shade) == pytest.approx(0.9 * float(value) / top, abs=0.02) for shade, value in shades
    )


def test_a_feature_that_is_never_on_is_said(polyglot: Model, few: Corpus) -> None:
    sae = made(polyglot.width)
    sae.b_enc[4] = -1e6
    page = feature_card(polyglot, few, sae, 4)
    assert "It is on at no token of these texts" in page
    assert "<mark" not in page


def test_cards_of_several_features_share_one_index(
    polyglot: Model, few: Corpus, tmp_path: Path
) -> None:
    sae = made(polyglot.width)
    index = feature_cards(polyglot, few, sae, [4, 9, 4], tmp_path / "cards", texts=2)
    assert sorted(file.name for file in index.parent.iterdir()) == [
        "4.html",
        "9.html",
        "index.html",
    ]
    assert Reader(index.read_text("utf-8")).links == ["4.html", "9.html"]
    alone = feature_card(polyglot, few, sae, 9, texts=2)
    linked = (index.parent / "9.html").read_text("utf-8")
    assert '<a href="index.html">All features</a>' in linked
    linked = linked.replace('<nav><a href="index.html">All features</a></nav>\n', "")
    assert linked.replace('<a href="4.html">4</a>', "4") == alone


def test_what_cannot_be_seen_in_a_token_has_a_sign() -> None:
    shown = [(glyph.text, glyph.sign) for glyph in glyphs(" a-b \t\n")]
    assert shown == [("·", True), ("a-b", False), ("·", True), ("⇥", True), ("↵", True)]
    assert glyphs("") == []


def test_a_token_keeps_its_hyphen_and_an_effect_gets_a_minus() -> None:
    reading = Reading({"en": 0.5}, {"en": 1.0}, {"en": 2}, 1.0, ())
    card = card_view(3, reading, [], [("-", -1.5), ("", -0.5)], [(5, 0.25)], 1.0)
    template = environment("steerlab.studies.feature_card").get_template("card.html.jinja")
    facts = Origin("m", "h", "relu", 4, ["<release>"], 2, "c")
    page = template.render(title="t", origin=facts, card=card, linked=())
    assert '<bdi class="token">-</bdi>' in page
    assert '<td class="number">−1.50</td>' in page
    assert '<bdi class="token"><i>empty</i></bdi>' in page
    assert "<release>" in "".join(Reader(page).text)
    widths = re.findall(r"<rect width=\"([\d.]+)\" height=\"11\" class=\"down\"", page)
    assert widths == ["60.0", "20.0"], "the largest effect fills the bar"


def test_what_is_wrong_is_said(polyglot: Model, few: Corpus, tmp_path: Path) -> None:
    sae = made(polyglot.width)
    with pytest.raises(SteerlabError, match="no feature 24; this autoencoder has features 0 to 23"):
        feature_card(polyglot, few, sae, 24)
    with pytest.raises(SteerlabError, match="reads 32 numbers"):
        feature_card(polyglot, few, made(32), 1)
    with pytest.raises(SteerlabError, match="needs 1 text, token and row or more; given texts=0"):
        feature_card(polyglot, few, sae, 1, texts=0)
    with pytest.raises(SteerlabError, match="no feature was named"):
        feature_cards(polyglot, few, sae, [], tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(SteerlabError, match="could not write"):
        feature_cards(polyglot, few.take(1), sae, [1], tmp_path / "file")
    long = Corpus("long", {"en": ("word " * 600,)}, aligned=False)
    with pytest.raises(SteerlabError, match="tokens; polyglot was made for 512"):
        feature_card(polyglot, long, sae, 1)
