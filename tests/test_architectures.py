"""A handful of families against plain transformers: reading, decoding alone, in rows and under
edits, cross-entropy. The whole sweep is `experiments/architectures.py`."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

FILE = Path(__file__).parents[1] / "experiments" / "architectures.py"


@pytest.fixture(scope="module")
def sweep() -> Any:
    import sys

    spec = importlib.util.spec_from_file_location("architectures", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["architectures"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "name",
    [
        "llama",
        "bloom",  # ALiBi's biases have a row for each row and head
        "gemma3_text",
        "gpt_neox",
        "mpt",  # a bias for all rows, and a size of its own for the longest text
        "lfm2",  # short convolutions beside attention
        "mamba",  # a state and no keys
        "opt",  # its head calls what is inside of its base model
    ],
)
def test_a_family_is_right_and_its_rows_join(sweep, name):
    found = sweep.check(name)
    assert (found.outcome, found.why) == ("right", "")


@pytest.mark.parametrize("name", ["openai-gpt", "gpt_bigcode", "gemma3n_text"])
def test_what_would_change_numbers_is_done_without(sweep, name, capsys):
    found = sweep.check(name)
    assert found.outcome == sweep.WITHOUT
    told = "does not give the numbers of single texts with"
    assert told in " ".join(capsys.readouterr().err.split())


def test_what_runs_again_at_every_step_is_counted_once(sweep):
    """GPT has no cache: its prompts and outputs run again for each token."""
    from steerlab.engine.decoding import decode
    from steerlab.engine.prompts import encode

    model = sweep.made("openai-gpt")
    edit = sweep.edit_of(model)[1]
    prompts = [f"{text}\n" for text in sweep.TEXTS] * 2
    found = decode(model, prompts, edit=edit, max_new_tokens=4, one_line=False)
    assert not model.tried().caches
    assert found.touched.prefill == {
        1: sum(len(ids) - 1 for ids in encode(model.tokenizer, prompts))
    }
    # The last token of a row is not run any more, and one that ends a text is not counted.
    assert found.touched.decode[1] <= sum(found.tokens)
    assert found.touched.decode[1] >= sum(count - 1 for count in found.tokens)


@pytest.mark.parametrize(
    ("name", "shared"),
    [
        ("bloom", True),
        ("mpt", True),
        ("opt", True),
        ("mamba", False),  # a state
        ("openai-gpt", False),  # no cache at all
    ],
)
def test_attribution_reads_a_prompt_once_where_gradients_go_through_the_cache(sweep, name, shared):
    """And says the same as a pass of each answer by itself."""
    from steerlab.engine.attribution import _Path, rows_of

    model = sweep.made(name)
    pair = ("We eat bread.\n", "Wir essen.\n", "It is good, they say.\n")
    path = _Path(model, rows_of(model, [pair])[0], "mean", 64)
    assert path.shared == shared
    points = [0.2, 1.0]
    values, slopes = path.look(points)
    assert slopes.abs().max() > 1e-6
    path.shared = False
    expected, alone = path.look(points)
    torch.testing.assert_close(values, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(slopes, alone, atol=1e-3 * float(alone.abs().max()), rtol=1e-3)


def test_a_masked_language_model_is_refused(sweep):
    found = sweep.check("xlm-roberta")
    assert found.outcome == "refused"
    assert "is a masked language model" in found.why


def test_a_vision_tower_as_deep_is_not_taken_for_the_language_model(sweep):
    """Gemma 3's has blocks of the same number; those that run on text are read."""
    from steerlab.models.anatomy import blocks

    model = sweep.made("gemma3")
    depth = model.n_layers
    towers = [each for each in model.hf.modules() if type(each).__name__ == "SiglipEncoder"]
    assert towers
    assert "Siglip" not in type(blocks(model.hf, depth)[0]).__name__


def test_the_page_lists_every_architecture(sweep):
    """And says of none that it is wrong without saying how."""
    text = sweep.PAGE.read_text("utf-8")
    assert all(f"| `{name}` |" in text for name in sweep.names())
    lines = [line.split("|") for line in text.splitlines() if line.startswith("| `")]
    assert {line[2].strip() for line in lines} <= set(sweep.ORDER)
    assert all(line[3].strip() for line in lines if line[2].strip() != "right")


def test_sizes_that_differ_by_layer_say_nothing_alone(sweep):
    from steerlab.engine.batching import row_bytes
    from steerlab.models.anatomy import size_of

    class PerLayer:
        num_hidden_layers = 3
        intermediate_size = (64, 32, 64)

        @property
        def head_dim(self) -> int:
            raise ValueError("ambiguous: one for each layer")

    assert size_of(PerLayer(), "head_dim") is None
    assert size_of(PerLayer(), "intermediate_size") is None
    model = sweep.made("llama")
    before = row_bytes(model, 8)
    model.config = type("Config", (PerLayer,), {"vocab_size": 12288, "num_attention_heads": 4})()
    assert 0 < row_bytes(model, 8) <= 2 * before


def test_the_longest_text_is_found_by_each_name(sweep):
    model = sweep.made("mpt")
    assert model.context == 128
