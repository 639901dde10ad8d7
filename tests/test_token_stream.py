"""Tokens as they come: their texts are what `generate` says, and nothing stays on the model."""

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import PROMPTS, random_directions

import steerlab as sl
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.generated import Token
from steerlab.engine.decoding import decode
from steerlab.engine.forward import rows_on
from steerlab.engine.growing_text import GrowingText
from steerlab.engine.prompts import encode
from steerlab.engine.token_lexicon import Lexicon, lexicon, packaged_lexicon
from steerlab.engine.token_stream import LEAST_VOTE, stream
from steerlab.models.model import Model

STRENGTHS = (0.0, 1.0, 1.6)


def said(tokens: list[Token]) -> str:
    return "".join(token.text for token in tokens)


# --------------------------------------------------------------------------------- same as generate


@pytest.mark.parametrize("temperature", [0.0, 0.9])
@pytest.mark.parametrize(("target", "strength"), [("es", 0.0), ("es", 1.6), ("ru", 1.0)])
def test_the_texts_together_are_what_generate_says(
    polyglot: Model, directions: Directions, target: str, strength: float, temperature: float
) -> None:
    edit = sl.add(directions.between("en", target).at(5), strength=strength)
    for seed, prompt in enumerate(PROMPTS):
        settings: dict[str, Any] = {"edit": edit, "temperature": temperature, "seed": seed}
        whole = decode(polyglot, [prompt], max_new_tokens=24, **settings)
        tokens = list(stream(polyglot, prompt, max_new_tokens=24, **settings))
        assert said(tokens) == whole.texts[0]
        assert len(tokens) == whole.tokens[0]
        assert [token.index for token in tokens] == list(range(len(tokens)))


def test_languages_of_many_bytes_a_letter_never_show_half_of_one(
    tiny: Callable[[str], Any],
) -> None:
    """A random model says parts of characters at any place; so does sampling at a high
    temperature."""
    model = sl.load(tiny("llama"))
    halves = 0
    for seed in range(4):
        settings: dict[str, Any] = {"temperature": 3.0, "seed": seed, "one_line": False}
        whole = sl.generate(model, "हाँ।\n", max_new_tokens=60, **settings)
        tokens = list(stream(model, "हाँ।\n", max_new_tokens=60, **settings))
        assert said(tokens) == whole
        halves += sum(not token.text for token in tokens)
    assert halves, "without a part of a character nothing was tested"


def test_an_output_without_line_breaks_goes_on(polyglot: Model) -> None:
    prompt = PROMPTS[0]
    one = list(stream(polyglot, prompt, max_new_tokens=40))
    more = list(stream(polyglot, prompt, max_new_tokens=40, one_line=False))
    assert said(one).endswith("\n")
    assert len(one) < len(more)
    assert said(more) == sl.generate(polyglot, prompt, max_new_tokens=40, one_line=False)


@pytest.mark.parametrize("positions", ["prompt", "generated", "all"])
@pytest.mark.parametrize("shape", ["gemma2", "gpt2", "qwen2", "polyglot"])
def test_any_model_and_any_positions(
    shaped: Callable[[str], Model], shape: str, positions: str
) -> None:
    model = shaped(shape)
    strength = 6 if shape == "polyglot" else 0.7  # whose activations are longer
    direction = random_directions(model).between("en", "es")
    edit = sl.add(direction, strength=strength, positions=positions)
    settings: dict[str, Any] = {"edit": edit, "max_new_tokens": 10, "one_line": False}
    tokens = list(stream(model, PROMPTS[2], **settings))
    assert said(tokens) == sl.generate(model, PROMPTS[2], **settings)
    assert said(tokens) != sl.generate(model, PROMPTS[2], max_new_tokens=10, one_line=False)


def test_a_model_of_transformerlens(lens: Callable[[str, str], Any], directions: Any) -> None:
    tl = lens("polyglot", "hooked")
    edit = sl.edit(_push, layer=5, tensors={"v": directions.between("en", "es").at(5).unit[0]})
    tokens = list(stream(tl, PROMPTS[0], edit=edit, max_new_tokens=12))
    assert said(tokens) == sl.generate(tl, PROMPTS[0], edit=edit, max_new_tokens=12)


def _push(h: torch.Tensor, tensors: Any) -> torch.Tensor:
    return 4 * tensors["v"]


# ------------------------------------------------------------------------------------- what is told


def test_probabilities_and_votes_are_those_of_the_whole_text(
    polyglot: Model, directions: Directions
) -> None:
    edit = sl.add(directions.between("en", "es").at(5))
    tokens = list(stream(polyglot, PROMPTS[0], edit=edit, max_new_tokens=12))
    words = packaged_lexicon(polyglot)
    prompt = encode(polyglot.tokenizer, [PROMPTS[0]])[0]
    ids = [*prompt, *(token.id for token in tokens)]
    with torch.inference_mode(), rows_on(polyglot, [ids], edit) as rows:
        logits, _ = rows.forward([0], keep="all")
    chances = logits[0, len(prompt) - 1 : -1].float().softmax(-1)
    masses = chances @ words.weights.T
    for token, chance, mass in zip(tokens, chances, masses, strict=True):
        assert token.probability == pytest.approx(float(chance[token.id]), rel=1e-3, abs=1e-6)
        assert token.id == int(chance.argmax())
        assert list(token.votes) == list(words.langs)
        assert list(token.votes.values()) == pytest.approx(mass.tolist(), rel=1e-3, abs=1e-5)
        best = max(token.votes, key=lambda lang: token.votes[lang])
        assert token.lang == (best if token.votes[best] >= LEAST_VOTE else None)


def test_an_edit_towards_a_language_makes_positions_vote_for_it(
    polyglot: Model, directions: Directions
) -> None:
    votes = {}
    for strength in (0.0, 1.5):
        edit = sl.add(directions.between("en", "ru").at(5), strength=strength)
        tokens = list(stream(polyglot, PROMPTS[3], edit=edit, max_new_tokens=12))
        votes[strength] = sum(token.lang == "ru" for token in tokens) / len(tokens)
    assert votes[0.0] < 0.2 < 0.5 < votes[1.5]


@pytest.mark.parametrize("layers", [(5,), (2, 5)])
def test_the_first_projection_rises_by_the_strength(
    polyglot: Model, directions: Directions, layers: tuple[int, ...]
) -> None:
    """The prompt is the same, so that of the last layer it is exactly the strength; what is added
    below also moves what is above."""
    direction = directions.between("en", "es").at(*layers)
    top = direction.at(layers[-1])
    first = {}
    for strength in STRENGTHS:
        edit = sl.add(top, strength=strength)
        token = next(iter(stream(polyglot, PROMPTS[0], edit=edit, direction=top)))
        assert token.projection is not None
        first[strength] = token.projection
    for strength in STRENGTHS:
        assert first[strength] - first[0.0] == pytest.approx(strength, abs=1e-3)
    both = next(iter(stream(polyglot, PROMPTS[0], direction=direction)))
    each = [
        next(iter(stream(polyglot, PROMPTS[0], direction=direction.at(layer)))).projection
        for layer in layers
    ]
    assert both.projection == pytest.approx(sum(map(float, each)) / len(layers), abs=1e-5)  # type: ignore[arg-type]


def test_the_projection_is_that_of_the_prompt_s_last_position(
    polyglot: Model, directions: Directions
) -> None:
    direction = directions.between("en", "es").at(5)
    seen: list[torch.Tensor] = []
    ids = torch.tensor(encode(polyglot.tokenizer, [PROMPTS[0]]))
    with polyglot.attached([("resid_post", 5, lambda h, _: seen.append(h.clone()))]):
        polyglot.body(ids, torch.ones_like(ids, dtype=torch.bool))
    from_source = seen[0][0, -1] - direction.start[0]
    expected = float(from_source @ direction.unit[0] / direction.gap[0])
    token = next(iter(stream(polyglot, PROMPTS[0], direction=direction)))
    assert token.projection == pytest.approx(expected, abs=1e-4)


def test_without_a_direction_there_is_no_projection(polyglot: Model) -> None:
    assert next(iter(stream(polyglot, PROMPTS[0]))).projection is None


def test_a_lexicon_of_ones_own(polyglot: Model, lines: Any) -> None:
    words = lexicon(polyglot, lines.split("estimate").select(["en", "ru"]))
    token = next(iter(stream(polyglot, PROMPTS[0], words=words)))
    assert set(token.votes) == {"en", "ru"}


def test_languages_that_a_tokenizer_has_no_token_of_are_left_out(
    polyglot: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(polyglot), "vocabulary", 300, raising=False)
    monkeypatch.setitem(vars(polyglot), "_lexicons", {})
    import steerlab.engine.token_lexicon as module

    plain = module._counts
    monkeypatch.setattr(module, "_counts", lambda model, texts: plain_short(plain, model, texts))
    words = packaged_lexicon(polyglot)
    assert 0 < len(words.langs) < 16
    assert set(words.sizes) == set(words.langs)


def plain_short(plain: Any, model: Model, texts: Any) -> torch.Tensor:
    """Counts of the first 300 tokens: letters and bytes, so that some languages have none of
    their own."""
    ids = torch.tensor(
        [token for row in encode(model.tokenizer, texts) for token in row if token < 300]
    )
    return torch.bincount(ids, minlength=300).double()[:300]


def test_the_view_has_every_token_in_its_language_s_colour() -> None:
    from test_display import Whole

    votes = [{"en": 0.4, "ru": 0.1}, {"en": 0.1, "ru": 0.3}, {"en": 0.01, "ru": 0.01}]
    made = [
        Token(text, 1, 0.5, lang, vote, 0.25, index)
        for index, (text, lang, vote) in enumerate(
            zip(["a <b>", " да", "."], ["en", "ru", None], votes, strict=True)
        )
    ]
    html = sl.figures.tokens(iter(made))
    page = Whole(html)
    assert page.tags == {"div", "span"}
    assert "".join(page.words).startswith("a <b> да.")
    assert [name for name in ("English", "Russian") if name in page.words] == ["English", "Russian"]
    spans = re.findall(r'<span title="[^"]*"([^>]*)>', html)
    colours = [re.findall(r"rgba\((\d+,\d+,\d+)", span) for span in spans]
    assert [len(each) for each in colours] == [1, 1, 0]
    assert colours[0] != colours[1]
    assert html.count("0.25 gaps along the direction") == 3
    assert html._repr_html_() == html


# ----------------------------------------------------------------------------------- between tokens


def test_between_tokens_the_model_is_as_it_is(polyglot: Model, directions: Directions) -> None:
    edit = sl.add(directions.between("en", "es").at(5), strength=1.5)
    plain = sl.generate(polyglot, PROMPTS[0], max_new_tokens=8)
    running = stream(polyglot, PROMPTS[0], edit=edit, max_new_tokens=8)
    texts = []
    for token in running:
        assert not polyglot.attachments
        texts.append(token.text)
        assert sl.generate(polyglot, PROMPTS[0], max_new_tokens=8) == plain
    assert "".join(texts) == sl.generate(polyglot, PROMPTS[0], edit=edit, max_new_tokens=8) != plain


def test_two_streams_at_once_and_one_that_is_left(polyglot: Model, directions: Directions) -> None:
    edits = [None, sl.add(directions.between("en", "de").at(4), strength=1.5)]
    running = [stream(polyglot, PROMPTS[2], edit=edit, max_new_tokens=10) for edit in edits]
    both: list[str] = ["", ""]
    left = stream(polyglot, PROMPTS[1], edit=edits[1])
    next(left)
    del left
    for _ in range(10):
        for number, each in enumerate(running):
            token = next(each, None)
            both[number] += token.text if token else ""
    for edit, text in zip(edits, both, strict=True):
        assert text == sl.generate(polyglot, PROMPTS[2], edit=edit, max_new_tokens=10)
    assert both[0] != both[1]


# ----------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"prompt": ""}, "no tokens"),
        ({"max_new_tokens": 0}, "give 1 or more"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"max_new_tokens": 100000}, "was made for"),
    ],
)
def test_what_is_refused_is_refused_before_the_first_token(
    polyglot: Model, given: dict[str, Any], what: str
) -> None:
    given = dict(given)
    prompt = given.pop("prompt", PROMPTS[0])
    with pytest.raises(SteerlabError, match=what):
        stream(polyglot, prompt, **given)


def test_edits_and_directions_that_do_not_fit_are_refused(
    polyglot: Model, directions: Directions, shaped: Callable[[str], Model]
) -> None:
    one = sl.add(directions.between("en", "es").at(5))
    with pytest.raises(SteerlabError, match="the stack has 2 edits"):
        stream(polyglot, PROMPTS[0], edit=sl.stack([one, one]))
    with pytest.raises(SteerlabError, match="has width"):
        stream(shaped("gpt2"), PROMPTS[0], direction=directions.between("en", "es").at(1))
    few = Lexicon(("en",), torch.ones(1, 7), {0: "a"})
    with pytest.raises(SteerlabError, match="the lexicon has"):
        stream(polyglot, PROMPTS[0], words=few)


def test_an_edit_that_never_acts_raises_at_the_end(polyglot: Model, directions: Directions) -> None:
    late = sl.add(directions.between("en", "es").at(5), positions="generated")
    running = stream(polyglot, PROMPTS[0], edit=late, max_new_tokens=1)
    next(running)
    with pytest.raises(SteerlabError, match="touched no position"):
        next(running)


# --------------------------------------------------------------------------------------------- text


class Bytes:
    """A tokenizer with tokens of bytes that are decoded as runs, as sentencepiece's are."""

    def __init__(self, pieces: list[bytes | str]):
        self.pieces = pieces

    def convert_ids_to_tokens(self, token: int) -> str:
        piece = self.pieces[token]
        return piece if isinstance(piece, str) else f"<0x{piece[0]:02X}>"

    def decode(self, tokens: list[int], *, skip_special_tokens: bool) -> str:
        text, run = "", b""
        for piece in [*(self.pieces[token] for token in tokens), ""]:
            if isinstance(piece, bytes):
                run += piece
                continue
            try:
                text += run.decode()
            except UnicodeDecodeError:
                text += "\ufffd" * len(run)
            text, run = text + piece, b""
        return text


@pytest.mark.parametrize("end", [b"\xe2", "€ or not"])
def test_a_run_of_bytes_is_held_back_to_its_end(end: bytes | str) -> None:
    """The first three bytes are a whole character, and an unfinished one behind it undoes it."""
    pieces = [b"\xe2", b"\x82", b"\xac", end]
    text = GrowingText(Bytes(pieces))
    given = [text.add(token, last=False) for token in range(len(pieces))] + [text.rest()]
    assert "".join(given) == Bytes(pieces).decode([0, 1, 2, 3], skip_special_tokens=True)
    assert given[:3] == ["", "", ""]
