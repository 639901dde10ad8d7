"""Sampling from a share of the probability (`top_p`): all of it changes nothing, the kept tokens
are the fewest, a tiny share is greedy, rows are as alone."""

from typing import Any

import pytest
import torch
from conftest import PROMPTS
from hypothesis import given
from hypothesis import strategies as st

import steerlab as sl
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.engine import sampling
from steerlab.engine.decoding import decode
from steerlab.engine.prompts import encode
from steerlab.engine.sampling import choose, nucleus, uniform
from steerlab.engine.talk import Row, Talk
from steerlab.engine.token_stream import stream
from steerlab.models.model import Model

HOT: dict[str, Any] = {"temperature": 1.0, "max_new_tokens": 16, "one_line": False}


def random_logits(seed: int, rows: int = 6, vocab: int = 50) -> torch.Tensor:
    return 3 * torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed))


@given(seed=st.integers(0, 10_000), top_p=st.floats(0.01, 1.0, exclude_max=True))
def test_the_kept_tokens_are_the_fewest_that_reach_the_share(seed: int, top_p: float) -> None:
    logits = random_logits(seed)
    shares = logits.softmax(-1)
    kept = nucleus(logits, shares, top_p)
    for of_row, mine in zip(shares.double(), kept, strict=True):
        inside, outside = of_row[mine], of_row[~mine]
        assert inside.sum() > top_p - 1e-6
        assert inside.sum() - inside.min() < top_p + 1e-6  # without the last it does not reach it
        assert not len(outside) or outside.max() <= inside.min()  # they are the likeliest


def test_what_is_sampled_is_kept_and_each_kept_token_comes() -> None:
    logits = random_logits(0, rows=1).expand(4000, -1).contiguous()
    chances = uniform(4000, 1, 0)[:, 0]
    drawn = choose(logits, 1.5, chances, 0.8)
    kept = nucleus(logits[:1], (logits[:1] / 1.5).softmax(-1), 0.8)[0]
    assert set(drawn.tolist()) == set(kept.nonzero()[:, 0].tolist())
    assert not kept.all()
    # As often as their shares of what is kept say.
    shares = (logits[0] / 1.5).softmax(-1).where(kept, 0)
    counted = torch.bincount(drawn, minlength=logits.shape[1]) / 4000
    assert (counted - shares / shares.sum()).abs().max() < 0.03
    every = choose(logits, 1.5, chances)
    assert not kept[every].all()  # the control: from all, others come too


def test_the_whole_share_changes_no_bit(polyglot: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not even ask which tokens are kept, and all but the whole share does."""

    def asked(*_: Any) -> Any:
        raise ZeroDivisionError("asked")

    plain = sl.generate(polyglot, PROMPTS, seed=3, **HOT)
    monkeypatch.setattr(sampling, "nucleus", asked)
    assert sl.generate(polyglot, PROMPTS, seed=3, top_p=1, **HOT) == plain
    with pytest.raises(ZeroDivisionError, match="asked"):
        sl.generate(polyglot, PROMPTS, seed=3, top_p=0.99, **HOT)


def test_a_tiny_share_is_greedy_and_a_seed_decides(polyglot: Model) -> None:
    greedy = sl.generate(polyglot, PROMPTS, **HOT | {"temperature": 0.0})
    assert sl.generate(polyglot, PROMPTS, seed=3, top_p=1e-6, **HOT) == greedy
    half = sl.generate(polyglot, PROMPTS, seed=3, top_p=0.6, **HOT)
    assert half != greedy
    assert half == sl.generate(polyglot, PROMPTS, seed=3, top_p=0.6, **HOT)
    assert half != sl.generate(polyglot, PROMPTS, seed=4, top_p=0.6, **HOT)
    assert half != sl.generate(polyglot, PROMPTS, seed=3, **HOT)


def test_of_equal_tokens_the_first_is_kept() -> None:
    """As greedy decoding takes it, where they are few and where they are many."""
    logits = torch.zeros(20, 256)
    logits[:, [7, 100]] = 1.0
    chances = uniform(20, 1, 0)[:, 0]
    assert choose(logits, 1.0, chances, 1e-6).tolist() == choose(logits, 0.0, None).tolist()


def test_rows_of_a_batch_are_as_alone(polyglot: Model, directions: Directions) -> None:
    """In `decode`, and rows of unlike shares that are said together."""
    step = directions.between("en", "es").at(5)
    edits = [sl.Edit(()), sl.add(step, strength=1.0), sl.add(step, strength=1.5)]
    texts, seeds, shares = PROMPTS[:3], [5, 6, 7], [0.5, 0.8, 1.0]
    alone = [
        str(sl.generate(polyglot, text, edit=edit, seed=seed, top_p=0.8, **HOT))
        for text, edit, seed in zip(texts, edits, seeds, strict=True)
    ]
    decoded = decode(polyglot, texts, edit=sl.stack(edits), seed=seeds, top_p=0.8, **HOT)
    assert decoded.texts == alone
    ids = encode(polyglot.tokenizer, texts)
    rows = [
        Row(of_row, edit, 16, 1.0, seed, top_p=share)
        for of_row, edit, seed, share in zip(ids, edits, seeds, shares, strict=True)
    ]
    talk = Talk(polyglot, rows)
    said = ["", "", ""]
    while talk.live:
        for piece in talk.step():
            said[piece.row] += piece.text
    for row, text in enumerate(texts):
        given: dict[str, Any] = {"edit": edits[row], "seed": seeds[row], **HOT}
        assert said[row] == str(sl.generate(polyglot, text, top_p=shares[row], **given))
        streamed = stream(polyglot, text, top_p=shares[row], **given)
        assert said[row] == "".join(token.text for token in streamed)


def test_shares_that_make_no_sense(polyglot: Model) -> None:
    for top_p in (0, -0.5, 1.5, float("nan")):
        told = f"top_p is {top_p!r}; give a share of the probability above 0, and at most 1"
        with pytest.raises(SteerlabError, match=told):
            sl.generate(polyglot, PROMPTS, temperature=1.0, top_p=top_p)
    with pytest.raises(SteerlabError, match="at temperature 0 nothing is sampled; give a temp"):
        sl.generate(polyglot, PROMPTS, top_p=0.5)
