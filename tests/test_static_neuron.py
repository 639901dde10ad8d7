"""One neuron made louder: found by what it writes, and changed by just so much."""

from typing import Any

import pytest
import torch
from conftest import PROMPTS

from steerlab.engine.decoding import decode
from steerlab.engine.prompts import encode
from steerlab.engine.static_neuron import static_neuron


def test_it_is_the_neuron_that_writes_most_towards_the_word(polyglot: Any) -> None:
    """Against values that plain hooks read, at one layer by hand."""
    found = static_neuron(polyglot, PROMPTS, "Das", layers=[3, 6])
    assert found.table["score"].is_monotonic_decreasing
    assert set(found.table["layer"]) <= {3, 6}
    word = polyglot.tokenizer("Das", add_special_tokens=False).input_ids[0]
    head = polyglot.hf.get_output_embeddings().weight[word].detach()
    values = []
    down = polyglot.blocks[found.layer].mlp.down_proj
    with down.register_forward_pre_hook(lambda _, args: values.append(args[0][0, -1])):
        for prompt in PROMPTS:
            ids = torch.tensor(encode(polyglot.tokenizer, [prompt]))
            with torch.no_grad():
                polyglot.hf(ids)
    score = torch.stack(values).mean(0) * (head @ down.weight.detach())
    assert int(score.argmax()) == found.neuron
    assert float(score.max()) == pytest.approx(float(found.table["score"][0]), rel=1e-3)


def test_a_factor_of_one_changes_nothing_and_others_do(polyglot: Any) -> None:
    found = static_neuron(polyglot, PROMPTS, "Das")
    plain, same, loud = (
        decode(polyglot, PROMPTS, edit=edit, max_new_tokens=5, one_line=False)
        for edit in (None, found.edit(factor=1.0), found.edit(factor=50.0))
    )
    assert plain.texts == same.texts != loud.texts
