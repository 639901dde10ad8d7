"""Attribution to tokens: it adds up, is exact where a model is linear, finds what is planted."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import NO_BOS, save_tiny
from torch import Tensor

import steerlab as sl
from steerlab.analysis.quadrature import integrate
from steerlab.core.errors import SteerlabError
from steerlab.engine.answers import answer_log_probs, answered
from steerlab.engine.attribution import _Path, attribution, rows_of
from steerlab.models.counting import counted
from steerlab.models.loading import load
from steerlab.models.model import Model

PROMPT = "We eat bread.\n"
PAIR = (PROMPT, "Wir essen Brot.\n", "It is good.\n")


def differences(model: Model, pair: tuple[str, str, str], baseline: Any = None) -> float:
    """log p(chosen) - log p(rejected), with the prompt's tokens as they are or at a baseline."""
    said = []
    for answer in pair[1:]:
        rows = answered(model, [pair[0]], [answer])
        end = len(rows.ids[0]) - rows.lengths[0]

        def take(h: Tensor, positions: Any, end: int = end) -> Tensor:
            moved = positions.text.clone()
            moved[:, end:] = False
            assert int(moved.sum()) == end - 1  # all but how the text begins
            return torch.where(moved[..., None], baseline(h[:, 1:end]), h)

        looks = [] if baseline is None else [("resid_pre", 0, take)]
        with torch.no_grad():
            said.append(float(answer_log_probs(model, rows, looks)[0]))
    return said[0] - said[1]


BASELINES = {
    "zero": lambda h: torch.zeros_like(h[:, :1]),
    "mean": lambda h: h.mean(1, keepdim=True),
}


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("shape", ["polyglot", "gemma3", "gpt2", NO_BOS])
def test_tokens_add_up_to_the_change(
    shaped: Callable[[str], Model], shape: str, baseline: str
) -> None:
    """Within a twentieth, and within a hundredth where that is asked for; by two plain runs."""
    model = shaped(shape)
    change = differences(model, PAIR) - differences(model, PAIR, BASELINES[baseline])
    assert abs(change) > 0.05
    points = []
    for tolerance in (0.05, 0.01):
        found = attribution(model, [PAIR], baseline=baseline, tolerance=tolerance)
        assert found["attribution"].sum() == pytest.approx(change, rel=tolerance)
        assert found["change"].unique() == pytest.approx(change, abs=1e-3)
        assert (found["error"] <= tolerance).all()
        points.append(int(found["points"].max()))
    assert points[0] <= points[1] < 500
    rows = answered(model, [PROMPT], [PAIR[1]])
    prompt = rows.ids[0][1 : -rows.lengths[0]]
    assert found["position"].tolist() == list(range(1, len(prompt) + 1))
    assert found["token"].tolist() == [model.tokenizer.decode([token]) for token in prompt]


@pytest.mark.parametrize("shape", ["polyglot", "gemma3", "gpt2", NO_BOS])
def test_a_prompt_read_once_for_both_answers_says_what_two_passes_say(
    shaped: Callable[[str], Model], shape: str
) -> None:
    """f and its slope by token, whichever of the answers is longer, and with one of one token."""
    model = shaped(shape)
    points = [0.01, 0.3, 1.0]
    for answers in (PAIR[1:], PAIR[:0:-1], ("a", PAIR[1])):
        path = _Path(model, rows_of(model, [(PROMPT, *answers)])[0], "zero", 64)
        assert path.shared
        with counted(model) as together:
            values, slopes = path.look(points)
        torch.testing.assert_close(values, path.values(points), atol=1e-5, rtol=1e-5)
        path.shared = False
        with counted(model) as apart:
            expected, alone = path.look(points)
        torch.testing.assert_close(values, expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(slopes, alone, atol=1e-4 * float(alone.abs().max()), rtol=1e-3)
        assert slopes.abs().max() > 0.01
        prompt = len(path.pair.prompt)
        assert apart.tokens - together.tokens == len(points) * prompt


def test_even_steps_would_miss_it(polyglot: Model) -> None:
    """Twenty even steps from zero, as released, miss the change by more than a twentieth."""
    path = _Path(polyglot, rows_of(polyglot, [PAIR])[0], "zero", 64)
    steps = [(step + 0.5) / 20 for step in range(20)]
    total = float(path.look(steps)[1].mean(0).sum())
    start, end = path.values([0.0, 1.0]).tolist()
    assert abs(total - (end - start)) > 0.05 * abs(end - start)


def linear(folder: Path) -> Model:
    """A model of one block whose logits are linear in its embeddings: no norms, attention that
    weighs all tokens alike, no MLP."""
    model = load(folder)
    inner = model.hf.model
    inner.norm = torch.nn.Identity()
    with torch.no_grad():
        for block in inner.layers:
            block.input_layernorm = torch.nn.Identity()
            block.self_attn.q_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
    return model


def single(model: Model) -> tuple[str, str]:
    """Two answers of one token."""
    found = [
        text
        for text in ("a", "b", "i", "o", "I")
        if len(model.tokenizer(text, add_special_tokens=False).input_ids) == 1
    ]
    return found[0], found[1]


@pytest.fixture
def straight(tmp_path: Path) -> Model:
    return linear(save_tiny(tmp_path / "linear", "llama", lively=True, layers=1))


def by_hand(model: Model, ids: tuple[int, ...], wanted: Tensor) -> Tensor:
    """What each token adds to h · wanted at the last position."""
    block = model.hf.model.layers[0].self_attn
    embedded = model.hf.model.embed_tokens.weight[list(ids)]
    value = block.v_proj.weight.T
    heads = value.reshape(model.width, 2, -1).repeat_interleave(2, 1).flatten(1)  # shared by two
    through = embedded @ heads @ block.o_proj.weight.T @ wanted / len(ids)
    through[-1] += embedded[-1] @ wanted
    return through


def test_a_linear_model_gives_gradient_times_input(straight: Model) -> None:
    """Within a thousandth, as asked, and after few looks."""
    chosen, rejected = single(straight)
    found = attribution(straight, [(PROMPT, chosen, rejected)], tolerance=0.001)
    head = straight.hf.lm_head.weight
    a, b = (
        straight.tokenizer(text, add_special_tokens=False).input_ids[0]
        for text in (chosen, rejected)
    )
    ids = answered(straight, [PROMPT], [chosen]).ids[0][:-1]
    with torch.no_grad():
        expected = by_hand(straight, ids, head[a] - head[b])
    torch.testing.assert_close(
        torch.tensor(found["attribution"].to_numpy()).float(), expected[1:], atol=1e-4, rtol=1e-3
    )
    assert (found["points"] < 40).all()
    assert expected[1:].abs().median() > 0.03  # not all are zero


def test_a_planted_token_is_found_and_of_the_opposite_sign_for_the_other(straight: Model) -> None:
    chosen, rejected = single(straight)
    tokenizer = straight.tokenizer
    a, b = (tokenizer(t, add_special_tokens=False).input_ids[0] for t in (chosen, rejected))
    ids = answered(straight, [PROMPT], [chosen]).ids[0][:-1]
    block = straight.hf.model.layers[0].self_attn
    with torch.no_grad():
        wanted = straight.hf.lm_head.weight[a] - straight.hf.lm_head.weight[b]
        heads = block.v_proj.weight.T.reshape(straight.width, 2, -1).repeat_interleave(2, 1)
        pull = heads.flatten(1) @ block.o_proj.weight.T @ wanted
        straight.hf.model.embed_tokens.weight[ids[3]] += 50 * pull / pull.norm()
    for pair, sign in (((chosen, rejected), 1), ((rejected, chosen), -1)):
        found = attribution(straight, [(PROMPT, *pair)])
        best = found.iloc[int(np.argmax(sign * found["attribution"]))]
        assert best["position"] == 3
        assert sign * best["attribution"] > 3 * found["attribution"].abs().nlargest(2).iloc[1]


def test_the_same_answer_twice_is_nothing(polyglot: Model) -> None:
    found = attribution(polyglot, [(PROMPT, PAIR[1], PAIR[1])])
    assert found["attribution"].abs().max() < 1e-6
    one = attribution(polyglot, [(PROMPT, PAIR[1])])
    assert one["attribution"].abs().max() > 0.1


def test_a_contrast_is_the_difference_of_its_answers(polyglot: Model) -> None:
    both, chosen, rejected = (
        attribution(polyglot, [pair], tolerance=0.01)["attribution"].to_numpy()
        for pair in (PAIR, PAIR[:2], (PROMPT, PAIR[2]))
    )
    np.testing.assert_allclose(both, chosen - rejected, atol=0.2)
    assert np.abs(both).max() > 1


def test_a_pair_hears_of_no_other_and_of_no_batch(polyglot: Model) -> None:
    long = ("I would like to buy two tickets for the train to the next city, please.\n", "Ja.\n")
    together = attribution(polyglot, [long, PAIR])
    alone = attribution(polyglot, [PAIR])
    pd.testing.assert_frame_equal(
        together[together["pair"] == 1].drop(columns="pair").reset_index(drop=True),
        alone.drop(columns="pair"),
    )
    small = attribution(polyglot, [PAIR], batch=5)
    np.testing.assert_allclose(small["attribution"], alone["attribution"], atol=2e-3)
    assert together.attrs["tokens"] > alone.attrs["tokens"] > 17 * 2


def test_a_model_of_transformerlens_says_the_same(
    polyglot: Model, lens: Callable[[str, str], Any]
) -> None:
    one, other = (
        attribution(model, [PAIR])["attribution"]
        for model in (polyglot, lens("polyglot", "bridge"))
    )
    np.testing.assert_allclose(one, other, atol=5e-3)


def test_nothing_is_left_behind(polyglot: Model) -> None:
    asked = [weight.requires_grad for weight in polyglot.hf.parameters()]
    with torch.inference_mode():
        attribution(polyglot, [PAIR])
    assert not polyglot.attachments
    assert asked == [weight.requires_grad for weight in polyglot.hf.parameters()]
    assert all(weight.grad is None for weight in polyglot.hf.parameters())


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([], "there is no pair to attribute"),
        ("text", "there is no pair to attribute"),
        ([("a", "b", "c", "d")], "is no pair; give"),
        ([(PROMPT, 3)], "is no pair; give"),
        ([(" \n", "Ja.", "No.")], "the prompt of the answer 'Ja.' is empty"),
        ([(PROMPT, "", "No.")], "has an empty answer"),
        ([(PROMPT, "Ja.", " ")], "has an empty answer"),
        ([("word " * 3000, "Ja.", "No.")], "polyglot was made for"),
    ],
)
def test_pairs_that_are_none(polyglot: Model, pairs: Any, message: str) -> None:
    with pytest.raises(SteerlabError, match=message):
        attribution(polyglot, pairs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"baseline": "noise"}, "baseline is 'noise'; give 'zero' or 'mean'"),
        ({"tolerance": 0.0}, "tolerance is 0.0; give a share"),
        ({"tolerance": float("nan")}, "tolerance is nan"),
        ({"most": 16}, "most is 16; give 17 or more"),
        ({"batch": 0}, "batch is 0"),
    ],
)
def test_options_that_are_none(polyglot: Model, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SteerlabError, match=message):
        attribution(polyglot, [PAIR], **options)


def test_what_is_not_reached_is_said(polyglot: Model) -> None:
    with pytest.raises(
        SteerlabError, match=r"pair 0 may miss \d+% of the change of .* after 17 points, and 0%"
    ):
        attribution(polyglot, [PAIR], most=17, tolerance=0.001)
    coarse = load("polyglot", dtype="bfloat16")
    with pytest.raises(SteerlabError, match="load the model with dtype='float32'"):
        attribution(coarse, [PAIR], most=200, tolerance=0.001)


def test_a_broken_model_is_said(tiny: Callable[[str], Path]) -> None:
    model = load(tiny("llama"))
    with torch.no_grad():
        model.hf.lm_head.weight.fill_(float("nan"))
    with pytest.raises(SteerlabError, match="gives NaN or infinity on the way"):
        attribution(model, [PAIR])


def test_under_an_edit_it_is_refused(polyglot: Model, directions: sl.Directions) -> None:
    edit = sl.add(directions.between("en", "de").at(3))
    with edit.on(polyglot), pytest.raises(SteerlabError, match="an edit is on"):
        attribution(polyglot, [PAIR])


def test_the_integral_of_a_step_is_found_where_even_points_do_not_look() -> None:
    """A norm's step at a ten-thousandth of the path, and a line; the two parts by formula."""
    width = 1e-4

    def look(at: Any, times: float = 1.0) -> tuple[Tensor, Tensor]:
        alpha = torch.tensor(at, dtype=torch.float64)
        value = alpha / (alpha**2 + width**2).sqrt() + 2 * alpha
        step = width**2 / (alpha**2 + width**2) ** 1.5
        return value, times * torch.stack([step, torch.full_like(alpha, 2.0)], 1)

    knobs: dict[str, Any] = {"tolerance": 0.001, "smallest": 0.01, "most": 2000}
    found = integrate(look, **knobs)
    assert found.reached
    torch.testing.assert_close(
        found.parts, torch.tensor([1.0, 2.0], dtype=torch.float64), atol=3e-3, rtol=0
    )
    assert found.points < 400
    assert abs(float(found.parts.sum()) - found.change) <= found.missed + 1e-12
    # What has another derivative than it says is never reached, and does not go on for ever.
    wrong = integrate(partial(look, times=1.5), **knobs)
    assert not wrong.reached
    assert wrong.points <= 2000
