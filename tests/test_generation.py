"""Decoding under an edit: the cache, padding, stopping and stacking change nothing; what was
touched is counted."""

from typing import Any

import pytest
import torch
from conftest import PROMPTS, SHAPES

from steerlab.core.directions import Direction, Directions
from steerlab.core.errors import SteerlabError
from steerlab.edits import Edit, ablate, add, rotate, stack
from steerlab.engine.decoding import decode, generate
from steerlab.engine.prompts import encode, pad
from steerlab.models.loading import load
from steerlab.models.model import Model
from steerlab.scores.langid import identifier


@pytest.fixture
def step(directions: Directions) -> Direction:
    return directions.between("en", "es")


@torch.inference_mode()
def without_cache(model: Model, prompt: str, edit: Edit, new: int) -> list[int]:
    """Greedy tokens of one prompt, the whole sequence anew for each, by Hugging Face's forward
    alone."""
    ids = torch.tensor(encode(model.tokenizer, [prompt]))
    made: list[int] = []
    with edit.on(model):
        for _ in range(new):
            token = int(model.hf(input_ids=ids, use_cache=False).logits[0, -1].argmax())
            if token == model.tokenizer.eos_token_id:
                break
            made.append(token)
            ids = torch.cat([ids, torch.tensor([[token]])], 1)
    return made


@pytest.mark.parametrize("shape", ["polyglot", *SHAPES])
def test_cached_decoding_is_decoding_without_a_cache(shape, polyglot, tiny, step):
    model = polyglot if shape == "polyglot" else load(tiny(shape))
    edits = [
        Edit(()),
        add(step.at(3), strength=1.2),
        rotate(step.at(5), share=0.8),
        ablate(step.at(4)),
    ]
    for edit in edits if shape == "polyglot" else edits[:1]:
        texts = generate(model, PROMPTS, edit=edit, max_new_tokens=12, one_line=False)
        tokens = [without_cache(model, given, edit, 12) for given in PROMPTS]
        assert texts == model.tokenizer.batch_decode(tokens, skip_special_tokens=True)


def test_rows_that_finish_early_leave_the_others_alone(polyglot, step):
    edit = add(step.at(4), strength=1.0)
    together = decode(polyglot, PROMPTS, edit=edit)
    alone = [decode(polyglot, [given], edit=edit) for given in PROMPTS]
    assert len(set(together.tokens)) > 1
    assert together.texts == [one.texts[0] for one in alone]
    assert together.tokens == [one.tokens[0] for one in alone]
    assert together.dose == pytest.approx([one.dose[0] for one in alone], rel=1e-3)


def test_the_batch_plan_changes_nothing(polyglot, step):
    edit = stack([add(step.at(4), strength=0.3 * row) for row in range(len(PROMPTS))])
    assert generate(polyglot, PROMPTS, edit=edit) == generate(polyglot, PROMPTS, edit=edit, batch=3)


def test_one_line_stops_after_some_text(polyglot):
    whole = generate(polyglot, PROMPTS, max_new_tokens=40, one_line=False)
    for line, text in zip(generate(polyglot, PROMPTS, max_new_tokens=40), whole, strict=True):
        assert text.startswith(line)
        assert "\n" not in line.lstrip("\n").rstrip("\n")
        assert not line or line.strip()


def test_steering_to_spanish_raises_the_share_of_spanish(polyglot, lines, step):
    given = [f"{text}\n" for text in lines.split("dev")["en"][:16]]
    before, after = (
        identifier().identify(generate(polyglot, given, edit=edit, max_new_tokens=20))
        for edit in (None, add(step.at(5), strength=1.5))
    )
    assert after.count("es") >= before.count("es") + 4


def test_a_stack_of_sixty_is_each_alone(polyglot, lines, directions):
    texts = [f"{text}\n" for text in lines.split("dev")["en"][:5]]
    to = [directions.between("en", iso) for iso in ("de", "es", "fr", "ru")]
    kinds: list[Any] = [
        lambda d, layer: add(d.at(layer), strength=0.5),
        lambda d, layer: add(d.at(layer), strength=1.5, positions="generated"),
        lambda d, layer: rotate(d.at(layer), share=1.0),
        lambda d, layer: ablate(d.at(layer)),
        lambda d, layer: Edit(()),
        lambda d, layer: add(d.at(layer), strength=0.6) | ablate(d.at(layer + 1), fraction=0.5),
    ]
    edits = [kinds[row % 6](to[row % 4], row % 7) for row in range(60)]
    prompts = [texts[row % 5] for row in range(60)]
    together = decode(polyglot, prompts, edit=stack(edits), max_new_tokens=6)
    alone = [
        decode(polyglot, [given], edit=edit, max_new_tokens=6)
        for given, edit in zip(prompts, edits, strict=True)
    ]
    assert together.texts == [one.texts[0] for one in alone]
    assert together.dose == pytest.approx([one.dose[0] for one in alone], rel=1e-3, abs=1e-6)
    assert len(set(together.texts)) > 20


def test_counts_of_touched_positions(polyglot, step):
    prompt_tokens = [len(ids) - 1 for ids in encode(polyglot.tokenizer, PROMPTS)]  # less BOS
    for positions in ("all", "prompt", "generated"):
        edit = add(step.at(2, 5), strength=0.5, positions=positions)
        made = decode(polyglot, PROMPTS, edit=edit, max_new_tokens=6, one_line=False)
        assert made.tokens == [6] * len(PROMPTS)  # 6 tokens are 5 passes after the prompt's
        prefill = 0 if positions == "generated" else sum(prompt_tokens)
        later = 0 if positions == "prompt" else 5 * len(PROMPTS)
        assert made.touched.prefill == {2: prefill, 5: prefill}
        assert made.touched.decode == {2: later, 5: later}
        assert all(dose > 0 for dose in made.dose)


def test_a_bridge_counts_the_same(polyglot, step):
    edit = add(step.at(5), strength=0.5, positions="generated")
    made = decode(polyglot.tl, PROMPTS[:2], edit=edit, max_new_tokens=4, one_line=False)
    assert made.touched.prefill == {5: 0}
    assert made.touched.decode == {5: 3 * 2}
    assert made.texts == generate(
        polyglot, PROMPTS[:2], edit=edit, max_new_tokens=4, one_line=False
    )


def test_an_edit_that_touches_nothing_raises(polyglot, step):
    edit = add(step.at(5), positions="generated")
    with pytest.raises(
        SteerlabError,
        match=r"touched no position \(positions: generated\); the outputs are unsteered",
    ):
        generate(polyglot, PROMPTS, edit=edit, max_new_tokens=1)


def test_a_stack_needs_an_edit_for_each_row(polyglot, step):
    for given in (PROMPTS, PROMPTS[:1]):
        told = f"there are {len(given)} prompts and the stack has 2 edits; give each prompt one"
        with pytest.raises(SteerlabError, match=told):
            generate(
                polyglot, given, edit=stack([add(step.at(5)), add(step.at(4))]), max_new_tokens=2
            )


def test_a_text_ends_where_the_model_says(polyglot, monkeypatch):
    """Some chat models have several tokens that end a text, and they may be changed between two
    calls."""
    whole = decode(polyglot, PROMPTS[:1], max_new_tokens=12, one_line=False)
    third = polyglot.tokenizer(whole.texts[0], add_special_tokens=False).input_ids[2]
    own = polyglot.tokenizer.eos_token_id
    monkeypatch.setattr(polyglot.hf.generation_config, "eos_token_id", [own, third])
    assert decode(polyglot, PROMPTS[:1], max_new_tokens=12, one_line=False).tokens[0] <= 2


def test_sampling_is_seeded(polyglot):
    draw = lambda seed: generate(polyglot, PROMPTS, temperature=1.0, seed=seed, max_new_tokens=16)  # noqa: E731
    torch.manual_seed(5)
    first = draw(0)
    torch.manual_seed(6)
    assert draw(0) == first
    assert draw(1) != first
    assert generate(polyglot, PROMPTS, max_new_tokens=16) != first


def test_inside_an_edit_generate_is_steered(polyglot, step):
    edit = add(step.at(5), strength=1.5)
    with edit.on(polyglot) as touched:
        inside = generate(polyglot, PROMPTS)
    assert inside == generate(polyglot, PROMPTS, edit=edit)
    assert inside != generate(polyglot, PROMPTS)
    assert min(touched.prefill[5], touched.decode[5]) > 0


@pytest.mark.parametrize("cached", [True, False])
def test_hugging_faces_own_generate_is_steered(cached, polyglot, step):
    edit = add(step.at(5), strength=1.5)
    ids, mask = pad(
        encode(polyglot.tokenizer, PROMPTS), polyglot.tokenizer.pad_token_id, polyglot.device
    )
    with edit.on(polyglot):
        made = polyglot.hf.generate(
            ids, attention_mask=mask.long(), do_sample=False, max_new_tokens=10, use_cache=cached
        )
    texts = polyglot.tokenizer.batch_decode(made[:, ids.shape[1] :], skip_special_tokens=True)
    assert texts == generate(polyglot, PROMPTS, edit=edit, max_new_tokens=10, one_line=False)


def test_no_prompts_give_no_texts(polyglot, step):
    assert generate(polyglot, []) == []
    assert generate(polyglot, [], edit=add(step.at(5))) == []


def test_a_prompt_longer_than_the_context(tiny):
    model = load(tiny("qwen2"))
    told = (
        r"a prompt of \d+ tokens and 8 new ones make \d+; .* was made for 128: shorten the prompt "
        r"or max_new_tokens"
    )
    with pytest.raises(SteerlabError, match=told):
        generate(model, ["word " * 200], max_new_tokens=8)
    assert len(generate(model, ["word " * 10], max_new_tokens=8)) == 1


def test_a_prompt_without_tokens(polyglot):
    with pytest.raises(SteerlabError, match=r"the prompt '' has no tokens; give some text"):
        generate(polyglot, ["The weather.\n", ""])


def test_options_that_make_no_sense(polyglot):
    with pytest.raises(SteerlabError, match=r"temperature is -1.0; give 0 .* or more"):
        generate(polyglot, PROMPTS, temperature=-1.0)
    with pytest.raises(SteerlabError, match="max_new_tokens is 0; give 1 or more"):
        generate(polyglot, PROMPTS, max_new_tokens=0)


def test_a_row_has_ended_if_one_more_token_would_not_be_taken(polyglot, step):
    """At the length that a row took it has ended, and a token earlier the limit cut it off."""
    edit = add(step.at(4), strength=1.0)
    free = decode(polyglot, PROMPTS, edit=edit)
    assert any(free.ended)
    for row, length in enumerate(free.tokens):
        if not free.ended[row]:
            assert length == 32
            continue
        cut = decode(polyglot, PROMPTS, edit=edit, max_new_tokens=length - 1)
        assert cut.ended == [other < length for other in free.tokens]
        assert not cut.ended[row]
        assert decode(polyglot, PROMPTS, edit=edit, max_new_tokens=length).ended[row]
