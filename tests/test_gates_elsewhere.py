"""Gates of rows, of a probe's verdict, and such as read an earlier layer."""

from functools import partial
from typing import Any

import pytest
import torch
from conftest import PROMPTS
from edits_by_hand import WIDTH, Fake, direction, randn, same_bits, steer, where
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.edits import Edit, add, gates, slerp, stack
from steerlab.engine.controller import Controller
from steerlab.engine.decoding import decode
from steerlab.engine.prompts import encode, pad

STEP = direction()
EDIT = add(STEP)
NEW = 5


def controller(
    width: int, layers: tuple[int, ...], *, reads: int, on: float, seed: int = 0
) -> Controller:
    """A random one; `on` shifts whether it acts."""
    tensors = {
        "centre": randn(width, seed=seed),
        "scale": 1 + randn(width, seed=seed + 1).abs(),
        "first": randn(4, width, seed=seed + 2) / width**0.5,
        "first_bias": randn(4, seed=seed + 3),
        "act": randn(4, seed=seed + 4),
        "act_bias": torch.tensor(on),
        "layer": randn(len(layers), 4, seed=seed + 5),
        "layer_bias": randn(len(layers), seed=seed + 6),
    }
    return Controller(tensors, layers, ("resid_post", reads))


def test_each_row_has_its_own_factor() -> None:
    h, places = 3 * randn(4, 6, WIDTH), where(4, 6)
    new = steer(EDIT.when(gates.rows([True, 0.5, False, 1.0])), h, places)
    whole, half = steer(EDIT, h, places), steer(add(STEP, strength=0.5), h, places)
    assert same_bits(new[[0, 3]], whole[[0, 3]])
    torch.testing.assert_close(new[1], half[1])
    assert same_bits(new[2], steer(Edit(()), h, places)[2])
    with pytest.raises(SteerlabError, match="the gate rows has 2 factors, and the batch has a row"):
        steer(EDIT.when(gates.rows([1.0, 1.0])), h, places)
    for wrong in ([], [float("nan")], torch.ones(2, 2)):
        with pytest.raises(SteerlabError, match="rows takes a finite number for each row"):
            gates.rows(wrong)


def test_a_probe_picks_one_vector_for_each_row() -> None:
    """Two edits behind the two verdicts of one probe: each row has the one or the other."""
    h, places = 3 * randn(6, 6, WIDTH), where(6, 6)
    other = direction(7)
    weights, bias, reads = 0.1 * randn(2, WIDTH, seed=3), torch.zeros(2), ("resid_post", 2)
    kinds = [gates.picked(weights, bias, number, reads=reads) for number in (0, 1)]
    # The first edit is large: a probe that read what it makes would say something else.
    selector = EDIT.when(kinds[0]) | add(other).when(kinds[1])
    seen: list[Tensor] = []
    with (fake := Fake()).attached([("resid_post", 2, lambda x, _: seen.append(x))]):
        fake(h, places)
    text = places.text[..., None]
    mean = (seen[0] * text).sum(1) / text.sum(1)
    chosen = (mean @ weights.T).argmax(1)
    assert 0 < int(chosen.sum()) < len(h)
    new = steer(selector, h, places)
    for row, kind in enumerate(chosen.tolist()):
        wanted = steer(add(other) if kind else EDIT, h, places)
        assert same_bits(new[row], wanted[row])
    sure = gates.picked(weights, bias, 0, reads=reads, sure=True)
    less = steer(EDIT.when(sure), h, places) - steer(Edit(()), h, places)
    whole = steer(EDIT, h, places) - steer(Edit(()), h, places)
    for row in (chosen == 0).nonzero()[:, 0].tolist():
        share = float(less[row, -1].norm() / whole[row, -1].norm())
        assert share == pytest.approx(float((mean[row] @ weights.T).softmax(-1)[0]), rel=1e-4)
    with pytest.raises(SteerlabError, match="there is no kind 2; there are 2"):
        gates.picked(weights, bias, 2, reads=reads)


def test_a_controller_is_what_its_formula_says() -> None:
    h, places = 3 * randn(6, 6, WIDTH), where(6, 6)
    made = controller(WIDTH, (2,), reads=1, on=0.0)
    seen: list[Tensor] = []
    with (fake := Fake()).attached([("resid_post", 1, lambda x, _: seen.append(x))]):
        fake(h, places)
    own = {name: tensor.double() for name, tensor in made.tensors.items()}
    x = (seen[0][:, -1].double() - own["centre"]) / own["scale"]
    hidden = torch.relu(x @ own["first"].T + own["first_bias"])
    logit = hidden @ own["act"] + own["act_bias"]
    factor = logit.sigmoid() * (hidden @ own["layer"][0] + own["layer_bias"][0]).sigmoid()
    factor = torch.where(logit > 0, factor, 0)
    assert 0 < int((logit > 0).sum()) < len(h)
    new, plain = (steer(each, h, places) for each in (made.before(EDIT), Edit(())))
    added = torch.where(
        places.text[..., None], factor[:, None, None] * STEP.gap[0] * STEP.unit[0], 0
    )
    torch.testing.assert_close(fake_at(new, plain, h, places), added.float(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(made.acts(seen[0][:, -1]).double(), logit, atol=1e-4, rtol=1e-4)


def fake_at(new: Tensor, plain: Tensor, h: Tensor, places: Any) -> Tensor:
    """What was added at layer 2, from what comes out: the one block behind it multiplies by 1.3."""
    return (new - plain) / 1.3


def test_open_is_the_edit_to_the_last_bit_and_shut_raises() -> None:
    h, places = 3 * randn(4, 6, WIDTH), where(4, 6)
    made = controller(WIDTH, (2,), reads=1, on=100.0)
    made.tensors["layer_bias"].fill_(100.0)
    assert same_bits(steer(made.before(EDIT), h, places), steer(EDIT, h, places))
    shut = controller(WIDTH, (2,), reads=1, on=-100.0)
    with pytest.raises(SteerlabError, match="touched no position .*gates: controller"):
        steer(shut.before(EDIT), h, places)


def test_rows_of_a_stack_read_where_their_own_controllers_do() -> None:
    """Two that differ in nothing but the layer that they read: each row is as alone."""
    h, places = 3 * randn(6, 6, WIDTH), where(6, 6)
    edits = [controller(WIDTH, (2,), reads=number % 2, on=0.3).before(EDIT) for number in range(6)]
    together = steer(stack(edits), h, places)
    alone = []
    for row, edit in enumerate(edits):
        new = steer(edit, h, places)
        assert same_bits(together[row], new[row])
        other = steer(edits[row - 1], h, places)
        alone.append(not same_bits(new[row], other[row]))
    assert any(alone), "where they read matters"


def condition(*layers: int) -> Any:
    """A condition at other layers than the edit's."""
    return direction(3, layers=layers)


def likenesses(h: Tensor, places: Any, condition: Any, layer: int) -> Tensor:
    """By hand: how like the condition each row's prompt is at a layer, in float64."""
    seen: list[Tensor] = []
    with (fake := Fake()).attached([("resid_post", layer, lambda x, _: seen.append(x))]):
        fake(h, places)
    text = (places.text & ~places.generated)[..., None]
    x = torch.where(text, seen[0].double(), 0)
    mean = x.sum(1) / text.sum(1)
    unit = condition.unit[condition.layers.index(layer)].double()
    goal = ((mean @ unit)[:, None] * unit).tanh()
    return torch.nn.functional.cosine_similarity(mean, goal, dim=-1)


def test_a_condition_is_read_at_a_layer_of_its_own() -> None:
    """Open rows are the edit's to the last bit, shut ones the model's; padding decides nothing."""
    h, places, made = 3 * randn(6, 6, WIDTH), where(6, 6), condition(0, 1, 2)
    whole, plain = steer(EDIT, h, places), steer(Edit(()), h, places)
    verdicts = []
    for layer in (0, 1, 2):
        cosines = likenesses(h, places, made, layer)
        threshold = float(cosines.median()) + 1e-6
        gate = gates.like(made, threshold, layer=layer)
        new = steer(EDIT.when(gate), h, places)
        opens = (cosines > threshold).tolist()
        verdicts.append(opens)
        assert 0 < sum(opens) < len(h)
        for row, is_open in enumerate(opens):
            assert same_bits(new[row], (whole if is_open else plain)[row])
        other = steer(EDIT.when(gates.like(made, threshold, layer=layer, above=False)), h, places)
        for row, is_open in enumerate(opens):
            assert same_bits(other[row], (plain if is_open else whole)[row])
        broken = h.clone()
        broken[~places.text] = torch.nan
        again = steer(EDIT.when(gate), broken, places)
        assert same_bits(again[places.text], new[places.text])
    assert verdicts[0] != verdicts[2], "where it is read matters"


def test_a_condition_at_the_edits_own_layer_is_the_gate_without_one() -> None:
    h, places, made = 3 * randn(6, 6, WIDTH), where(6, 6), condition(2)
    threshold = float(likenesses(h, places, made, 2).median()) + 1e-6
    here, named = (gates.like(made, threshold, layer=layer) for layer in (None, 2))
    assert same_bits(steer(EDIT.when(here), h, places), steer(EDIT.when(named), h, places))


def test_a_condition_that_is_always_met_is_the_edit_and_one_never_met_raises() -> None:
    h, places, made = 3 * randn(4, 6, WIDTH), where(4, 6), condition(0)
    met = EDIT.when(gates.like(made, -1.1, layer=0))
    assert same_bits(steer(met, h, places), steer(EDIT, h, places))
    with pytest.raises(SteerlabError, match="touched no position .*gates: like"):
        steer(EDIT.when(gates.like(made, 1.1, layer=0)), h, places)


def test_one_condition_opens_an_edit_of_several_layers() -> None:
    h, places, made = 3 * randn(6, 6, WIDTH), where(6, 6), condition(1)
    edit = add(direction(layers=(1, 2, 3)))
    cosines = likenesses(h, places, made, 1)
    threshold = float(cosines.median()) + 1e-6
    new = steer(edit.when(gates.like(made, threshold, layer=1)), h, places)
    whole, plain = steer(edit, h, places), steer(Edit(()), h, places)
    for row, is_open in enumerate((cosines > threshold).tolist()):
        assert same_bits(new[row], (whole if is_open else plain)[row])


def test_rows_of_a_stack_have_conditions_at_layers_of_their_own() -> None:
    h, places, made = 3 * randn(6, 6, WIDTH), where(6, 6), condition(0, 1)
    edits = []
    for row in range(6):
        layer = row % 2
        threshold = float(likenesses(h, places, made, layer).median()) + 1e-6
        edits.append(EDIT.when(gates.like(made, threshold, layer=layer)))
    together = steer(stack(edits), h, places)
    alone = [steer(edit, h, places) for edit in edits[:2]]
    for row in range(6):
        assert same_bits(together[row], alone[row % 2][row])
    assert not same_bits(alone[0], alone[1])


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (
            lambda: EDIT.when(gates.like(condition(3), 0.1, layer=3)),
            "the gate like reads resid_post of layer 3, which comes behind the edit at resid_post "
            "of layer 2; read an earlier layer",
        ),
        (lambda: gates.like(condition(0, 1), 0.1, layer=2), "layer 2"),
        (
            lambda: steer(
                EDIT.when(gates.like(condition(1), 0.1, layer=1)),
                randn(2, 1, WIDTH),
                where(2, 1, decode=True),
            ),
            "the gate like decides on the prompt, and has seen none of a row",
        ),
        (
            lambda: controller(WIDTH, (2,), reads=3, on=0).before(EDIT),
            "reads resid_post of layer 3",
        ),
        (lambda: controller(WIDTH, (1,), reads=0, on=0).before(EDIT), "is of the layers 1, not 2"),
        (lambda: controller(WIDTH, (2,), reads=1, on=0).before(Edit(())), "the edit has no parts"),
        (
            lambda: steer(
                controller(WIDTH, (2,), reads=1, on=0).before(EDIT),
                randn(2, 1, WIDTH),
                where(2, 1, decode=True),
            ),
            "decides on the prompt, and has seen none of a row",
        ),
    ],
)
def test_what_cannot_be_controlled_is_told(make: Any, told: str) -> None:
    with pytest.raises(SteerlabError, match=told):
        make()


# ------------------------------------------------------------------------------ on a real model


def outputs(model: Any, edit: Edit, prompts: Any = PROMPTS) -> list[str]:
    return decode(model, prompts, edit=edit, max_new_tokens=NEW, one_line=False).texts


@pytest.mark.parametrize("layer", [3, 5])
def test_the_verdict_of_an_earlier_layer_holds_in_every_way_of_decoding(
    polyglot: Any, directions: Any, layer: int, tmp_path: Any
) -> None:
    """Alone, in a stack, of prompts that share their passes, and in Hugging Face's own loop."""
    step = directions.between("en", "de").at(layer)
    edit = add(step, strength=1.5)
    prompts = [*PROMPTS, "Das Wetter ist heute schön.\n", "Wir essen Brot mit Butter.\n"]
    made = controller(polyglot.width, (layer,), reads=1, on=0.0)
    made.tensors["centre"].zero_()
    made.tensors["layer_bias"].fill_(50.0)
    logits = [float(_logit(polyglot, made, each)) for each in prompts]
    made.tensors["act_bias"].fill_(-sorted(logits)[3] + 1e-3)
    opens = [logit > sorted(logits)[3] - 1e-3 for logit in logits]
    assert 0 < sum(opens) < len(opens)
    found = outputs(polyglot, made.before(edit), prompts)
    plain = outputs(polyglot, Edit(()), prompts)
    assert [a == b for a, b in zip(found, plain, strict=True)] == [not each for each in opens]
    alone = [
        outputs(polyglot, made.before(edit), [prompt])[0] if is_open else plain[number]
        for number, (prompt, is_open) in enumerate(zip(prompts, opens, strict=True))
    ]
    assert found == alone
    edits = [made.before(edit), slerp(step), made.before(edit)]
    twice = [prompt for prompt in prompts for _ in edits]
    together = outputs(polyglot, stack(edits * len(prompts)), twice)
    assert together[::3] == together[2::3] == found
    assert together[1::3] == outputs(polyglot, slerp(step), prompts)
    ids, mask = pad(encode(polyglot.tokenizer, prompts), 0, polyglot.device)
    for way in ({}, {"use_cache": False}):
        with made.before(edit).on(polyglot):
            out = polyglot.hf.generate(
                ids, attention_mask=mask.long(), max_new_tokens=NEW, do_sample=False, **way
            )
        said = polyglot.tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
        assert said == found
    back = Edit.load(made.before(edit).save(tmp_path / "edit.safetensors"))
    assert (back == made.before(edit), back.digest) == (True, made.before(edit).digest)
    assert outputs(polyglot, back, prompts) == found
    again = Controller.load(made.save(tmp_path / "controller.safetensors"))
    assert again.before(edit).digest == made.before(edit).digest


def _logit(model: Any, made: Controller, prompt: str) -> Tensor:
    seen: list[Tensor] = []
    tokens, mask = pad(encode(model.tokenizer, [prompt]), model.padding, model.device)
    with model.attached([("resid_post", 1, partial(_keep, seen))]), torch.no_grad():
        model.body(tokens, mask)
    return made.acts(seen[0][:, -1])[0]


def _keep(seen: list[Tensor], h: Tensor, _: Any) -> None:
    seen.append(h)


def test_a_condition_of_an_earlier_layer_holds_in_every_way_of_decoding(
    polyglot: Any, directions: Any, tmp_path: Any
) -> None:
    """With a cache and without, padded, stacked, and from a file."""
    edit = add(directions.between("en", "de").at(5), strength=1.5)
    made = directions.between("de", "en").at(2)
    prompts = [*PROMPTS, "Das Wetter ist heute schön.\n", "Wir essen Brot mit Butter.\n"]
    cosines = [_likeness(polyglot, made, prompt) for prompt in prompts]
    threshold = sorted(cosines)[len(cosines) // 2] - 1e-4
    opens = [cosine > threshold for cosine in cosines]
    assert 0 < sum(opens) < len(opens)
    gated = edit.when(gates.like(made, threshold, layer=2))
    plain, whole = (outputs(polyglot, each, prompts) for each in (Edit(()), edit))
    wanted = [b if is_open else a for a, b, is_open in zip(plain, whole, opens, strict=True)]
    assert plain != wanted != whole
    assert outputs(polyglot, gated, prompts) == wanted
    edits = [gated, slerp(directions.between("en", "de").at(5)), edit]
    twice = [prompt for prompt in prompts for _ in edits]
    together = outputs(polyglot, stack(edits * len(prompts)), twice)
    assert together[::3] == wanted
    assert together[2::3] == whole
    ids, mask = pad(encode(polyglot.tokenizer, prompts), 0, polyglot.device)
    for way in ({}, {"use_cache": False}):
        with gated.on(polyglot):
            out = polyglot.hf.generate(
                ids, attention_mask=mask.long(), max_new_tokens=NEW, do_sample=False, **way
            )
        said = polyglot.tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
        assert said == wanted
    back = Edit.load(gated.save(tmp_path / "edit.safetensors"))
    assert (back == gated, back.digest) == (True, gated.digest)
    assert outputs(polyglot, back, prompts) == wanted
    elsewhere = edit.when(gates.like(directions.between("de", "en").at(3), threshold, layer=3))
    assert elsewhere.digest != gated.digest


def _likeness(model: Any, condition: Any, prompt: str) -> float:
    seen: list[Tensor] = []
    tokens, mask = pad(encode(model.tokenizer, [prompt]), model.padding, model.device)
    look = ("resid_post", condition.layers[0], partial(_keep, seen))
    with model.attached([look]), torch.no_grad():
        model.body(tokens, mask)
    mean, unit = seen[0][0, 1:].mean(0), condition.unit[0]
    goal = torch.tanh((mean @ unit) * unit)
    return float(torch.nn.functional.cosine_similarity(mean, goal, dim=0))
