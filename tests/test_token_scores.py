"""Log-probabilities of tokens: those of a prompt are those of `cross_entropy`, under an edit too;
those of an answer are those of the same text read; rows are as alone."""

import pytest
import torch
from conftest import PROMPTS
from tokenizers import Tokenizer
from tokenizers.decoders import ByteFallback, Fuse, Replace, Sequence, Strip
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

import steerlab as sl
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.tokens import Spelling
from steerlab.engine.prompts import encode
from steerlab.engine.talk import Piece, Row, Talk
from steerlab.models.model import Model


def said(model: Model, rows: list[Row]) -> tuple[Talk, list[list[Piece]]]:
    """A talk that has ended, and the pieces of each row."""
    talk = Talk(model, rows)
    pieces: list[list[Piece]] = [[] for _ in rows]
    while talk.live:
        for piece in talk.step():
            pieces[piece.row].append(piece)
    return talk, pieces


@pytest.mark.parametrize("positions", ["all", "prompt", "generated"])
def test_a_prompt_is_scored_as_cross_entropy_does_under_its_edit(
    polyglot: Model, directions: Directions, positions: str
) -> None:
    step = directions.between("en", "es").at(5)
    edit = sl.add(step, strength=1.5, positions=positions)
    ids = encode(polyglot.tokenizer, PROMPTS)
    rows = [Row(of_row, edit, 2, likeliest=3, reads=True) for of_row in ids]
    rows.append(Row(ids[0], None, 2, likeliest=0, reads=True))
    rows.append(Row(ids[0], edit, 2, likeliest=0))
    talk, _ = said(polyglot, rows)
    # An edit of what is generated leaves the prompt as it is.
    read = None if positions == "generated" else edit
    wanted = [*sl.cross_entropy(polyglot, PROMPTS, read), sl.cross_entropy(polyglot, PROMPTS[0])]
    for number, mean in enumerate(wanted):
        first, *others = talk.prompt_scores[number]
        assert first.logprob is None
        assert [each.token for each in (first, *others)] == list(rows[number].ids)
        logprobs = torch.tensor([each.logprob for each in others])
        assert -logprobs.mean() == pytest.approx(float(mean), abs=2e-5)
        for each in others:
            assert len(each.likeliest) == (3 if number < len(PROMPTS) else 0)
            assert each.logprob is not None
            if each.likeliest:  # the token has the very number that it has among the likeliest
                assert (each.logprob >= each.likeliest[0][1]) == (
                    each.token == each.likeliest[0][0]
                )
                assert dict(each.likeliest).get(each.token, each.logprob) == each.logprob
    assert len(PROMPTS) + 1 not in talk.prompt_scores  # who does not ask is not told
    steered, plain = talk.prompt_scores[0], talk.prompt_scores[len(PROMPTS)]
    moved = [one.logprob != other.logprob for one, other in zip(steered, plain, strict=True)]
    assert any(moved) == (positions != "generated")


def test_what_is_said_has_the_scores_that_it_has_when_it_is_read(
    polyglot: Model, directions: Directions
) -> None:
    """Sampled hot and from a share: the scores are of the model's own distribution."""
    edit = sl.add(directions.between("en", "es").at(5), strength=1.0)
    [ids] = encode(polyglot.tokenizer, PROMPTS[:1])
    how = Row(ids, edit, 12, 1.3, 7, top_p=0.9, likeliest=2)
    _, [pieces] = said(polyglot, [how])
    scores = [piece.score for piece in pieces]
    whole = [*ids, *(score.token for score in scores if score is not None)]
    talk, _ = said(polyglot, [Row(whole, edit, 1, likeliest=2, reads=True)])
    for score, again in zip(scores, talk.prompt_scores[0][len(ids) :], strict=True):
        assert score is not None
        assert score.token == again.token
        assert score.logprob == pytest.approx(again.logprob, abs=1e-4)
        assert [token for token, _ in score.likeliest] == [token for token, _ in again.likeliest]
    text = ""
    for piece in pieces:
        assert piece.start == len(text)
        text += piece.text
    together, [_, beside] = said(polyglot, [Row(ids * 2, None, 9), how])
    assert [piece.text for piece in beside] == [piece.text for piece in pieces]
    for piece, alone in zip(beside, pieces, strict=True):
        assert piece.score is not None
        assert alone.score is not None
        assert piece.score.logprob == pytest.approx(alone.score.logprob, abs=1e-4)
    assert not together.prompt_scores


def test_the_token_that_ends_a_text_has_a_score(
    polyglot: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    [ids] = encode(polyglot.tokenizer, PROMPTS[:1])
    _, [pieces] = said(polyglot, [Row(ids, None, 4, likeliest=0)])
    assert pieces[2].score is not None
    third = pieces[2].score.token
    monkeypatch.setattr(polyglot.hf.generation_config, "eos_token_id", [third])
    _, [ended] = said(polyglot, [Row(ids, None, 4, likeliest=0)])
    assert [piece.end for piece in ended] == [None, None, "stop"]
    assert ended[2].score is not None
    assert ended[2].score.token == third


def test_a_prompt_without_numbers_fails(polyglot: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of two rows: a logit within its prompt is none, and the last ones are."""
    ids = encode(polyglot.tokenizer, PROMPTS[:2])
    forward = type(polyglot).forward

    def broken(self: Model, *args: object, **options: object) -> object:
        logits, cache = forward(self, *args, **options)  # type: ignore[arg-type]
        logits[0, -3, 5] = float("nan")
        return logits, cache

    monkeypatch.setattr(type(polyglot), "forward", broken)
    talk = Talk(polyglot, [Row(of_row, None, 1, likeliest=0, reads=True) for of_row in ids])
    assert [piece.end for piece in talk.step()] == ["failed", "length"]
    assert list(talk.prompt_scores) == [1]


def test_rows_that_ask_for_what_makes_no_sense(polyglot: Model) -> None:
    with pytest.raises(SteerlabError, match="give likeliest=0 or more"):
        Talk(polyglot, [Row([1, 5], reads=True)])
    with pytest.raises(SteerlabError, match="likeliest is -1"):
        Talk(polyglot, [Row([1, 5], likeliest=-1)])


def test_the_bytes_of_tokens_are_those_of_the_text(polyglot: Model) -> None:
    tokenizer = polyglot.tokenizer
    spelling = Spelling(tokenizer)
    text = "The weather é 你好 🙂, it says:\n\tgood \x01 mañana 𒀀."
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert b"".join(map(spelling.of, ids)) == text.encode()
    assert any("\ufffd" in tokenizer.decode([token]) for token in ids)
    bos = tokenizer.bos_token_id
    assert spelling.of(bos) == tokenizer.bos_token.encode()
    assert not spelling.is_text(bos)
    assert spelling.is_text(ids[0])
    assert spelling.of(10_000_000) == b""


def test_tokens_of_bytes_and_spaces_that_are_dropped() -> None:
    """As SentencePiece writes them."""
    pieces = Tokenizer(WordLevel({"▁a": 0, "<0xC3>": 1, "<0xA9>": 2, "b": 3}, unk_token="b"))
    pieces.decoder = Sequence([Replace("▁", " "), ByteFallback(), Fuse(), Strip(" ", 1, 0)])
    spelling = Spelling(PreTrainedTokenizerFast(tokenizer_object=pieces))
    assert spelling.tokenizer.decode([0, 1, 2, 3, 0]) == "aéb a"
    assert b"".join(map(spelling.of, [0, 1, 2, 3, 0])) == " aéb a".encode()
