"""Which positions count: what a text begins with does not, and `generate` is followed whatever
cache and mask it works with."""

from typing import Any

import pytest
import torch
from conftest import NO_BOS, PROMPTS, random_directions

import steerlab as sl
from steerlab.core.corpus import Corpus
from steerlab.core.errors import SteerlabError
from steerlab.core.tokens import beginning
from steerlab.edits import add, stack
from steerlab.engine.collect import collect
from steerlab.engine.decoding import decode
from steerlab.engine.prompts import encode, pad
from steerlab.models.positions import positions_of

NEW = 6
# The ways in which Hugging Face's generate may run, each with another mask or cache.
WAYS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "static cache": {"cache_implementation": "static"},
    "in chunks": {"prefill_chunk_size": 3},
    "in chunks, one token left over": {"prefill_chunk_size": 4},
    "without a cache": {"use_cache": False},
}


def steps(model: Any) -> Any:
    return random_directions(model).between("en", "es")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("positions", ["all", "prompt", "generated"])
def test_generate_under_an_edit_says_what_ours_says(polyglot, directions, positions, way):
    """In a padded batch; the counts of positions agree too, where no pass runs them again."""
    edit = add(directions.between("en", "de").at(4), strength=1.5, positions=positions)
    ids, mask = pad(encode(polyglot.tokenizer, PROMPTS), 0, polyglot.device)
    ours = decode(polyglot, PROMPTS, edit=edit, max_new_tokens=NEW, one_line=False)
    options: dict[str, Any] = {"max_new_tokens": NEW, "do_sample": False, **WAYS[way]}
    with edit.on(polyglot) as touched:
        out = polyglot.hf.generate(ids, attention_mask=mask.long(), **options)
    said = polyglot.tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
    assert said == ours.texts
    assert "generate" not in vars(polyglot.hf)
    if way != "without a cache" and positions != "generated":
        assert touched.prefill == ours.touched.prefill


def test_two_edits_and_copies_of_a_prompt_are_followed(polyglot, directions):
    first, second = (add(directions.between("en", lang).at(4)) for lang in ("de", "es"))
    ids, mask = pad(encode(polyglot.tokenizer, PROMPTS[:2]), 0, polyglot.device)
    options: dict[str, Any] = {"max_new_tokens": NEW, "do_sample": False, "prefill_chunk_size": 3}
    with (first | second).on(polyglot):
        wanted = polyglot.hf.generate(ids, attention_mask=mask.long(), **options)
    with first.on(polyglot):
        with second.on(polyglot):
            inside = polyglot.hf.generate(inputs=ids, attention_mask=mask.long(), **options)
        alone = polyglot.hf.generate(ids, attention_mask=mask.long(), **options)
        beams = polyglot.hf.generate(
            ids, attention_mask=mask.long(), max_new_tokens=2, num_beams=2, do_sample=False
        )
    assert torch.equal(inside, wanted)
    assert not torch.equal(alone, wanted)
    assert len(beams) == 2


@pytest.mark.parametrize("positions", ["all", "prompt", "generated"])
def test_guessed_tokens_are_followed(polyglot, directions, positions):
    """Where a pass runs several tokens that were guessed, by an assistant or from the prompt, and
    takes some back; where generate is called again in one `with`; and behind a cache of the
    user's."""
    from transformers import DynamicCache

    from steerlab.models.stream import twin

    edit = add(directions.between("en", "de").at(4), strength=1.5, positions=positions)
    ours = decode(polyglot, PROMPTS, edit=edit, max_new_tokens=NEW, one_line=False)
    hf, options = polyglot.hf, {"max_new_tokens": NEW, "do_sample": False}
    assistant = twin(hf)
    for ids, text in zip(encode(polyglot.tokenizer, PROMPTS), ours.texts, strict=True):
        tokens = torch.tensor([ids])
        mask = torch.ones_like(tokens)
        read = DynamicCache()
        with edit.on(polyglot):
            hf(tokens[:, :2], attention_mask=mask[:, :2], past_key_values=read, use_cache=True)
            for way in (
                {"prompt_lookup_num_tokens": 3},
                {"assistant_model": assistant},
                {},
                {"past_key_values": read},
            ):
                out = hf.generate(tokens, attention_mask=mask, **options, **way)
                said = polyglot.tokenizer.decode(out[0, len(ids) :], skip_special_tokens=True)
                assert said == text, list(way)


def test_padding_is_told_where_no_mask_is_given(polyglot, directions):
    edit = add(directions.between("en", "de").at(4), strength=1.5)
    ids, mask = pad(encode(polyglot.tokenizer, PROMPTS), 0, polyglot.device)
    with edit.on(polyglot) as touched:
        polyglot.hf.generate(ids, max_new_tokens=1, do_sample=False)
    assert touched.prefill == {4: int(mask.sum()) - len(mask)}


def test_a_mask_that_does_not_say_is_refused(polyglot, directions):
    edit = add(directions.between("en", "de").at(4))
    ids = torch.tensor([[1, 40, 50]])
    with (
        edit.on(polyglot),
        pytest.raises(SteerlabError, match=r"mask of shape \(1, 1, 3, 3\); give one with a number"),
    ):
        polyglot.hf(input_ids=ids, attention_mask=torch.zeros(1, 1, 3, 3))


# ------------------------------------------------------------------------------ how a text begins


def test_the_first_token_does_not_count_where_there_is_no_bos():
    ids = torch.tensor([[0, 0, 40, 50, 60], [7, 40, 50, 60, 70]])
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    counted = [[False] * 3 + [True] * 2, [False] + [True] * 4]
    for none in (None, ()):
        assert positions_of(ids, mask, past=0, bos=none).text.tolist() == counted
    # With BOS only where it stands first, also behind other tokens that begin a text.
    assert positions_of(ids, mask, past=0, bos=7).text.tolist()[1] == counted[1]
    assert positions_of(ids, mask, past=0, bos=7).text.tolist()[0] == mask[0].bool().tolist()
    assert positions_of(ids, mask, past=0, bos=3, special=[40]).text.tolist()[0] == counted[0]
    two = positions_of(ids, mask, past=0, bos=(7, 40)).text.tolist()
    assert two == [mask[0].bool().tolist(), [False] * 2 + [True] * 3]
    assert positions_of(ids, mask, past=3, bos=None).text.all(1).tolist() == [False, True]


def sink(model: Any, size: float) -> None:
    """Make the first position of every text huge in one direction, as attention sinks are."""

    def hook(_: Any, args: tuple, out: Any) -> Any:
        h = (out[0] if isinstance(out, tuple) else out).clone()
        if h.shape[1] > 1:
            h[:, 0] = size * torch.nn.functional.one_hot(torch.tensor(0), model.width)
        return (h, *out[1:]) if isinstance(out, tuple) else h

    model.blocks[0].register_forward_hook(hook)


def test_a_sink_is_in_no_statistic_and_under_no_edit(lively):
    """A gap between languages is that of their texts, not of the position that all share."""
    model = sl.load(lively(NO_BOS))
    assert beginning(model.tokenizer) == ()
    lines = ("It rains today, and tomorrow too.", "We go home.", "The bread is fresh.")
    corpus = Corpus("two", {"en": lines, "de": lines[::-1]}, (0, 1, 2))
    before = collect(model, corpus, layers=[0])
    sink(model, 1000.0)
    moments = collect(model, corpus, layers=[0])
    assert moments.mean.abs().max() < 50
    torch.testing.assert_close(moments.mean, before.mean)
    tokens = [len(ids) - 1 for ids in encode(model.tokenizer, [f"{line}\n" for line in lines])]
    assert moments.count.tolist() == [sum(tokens)] * 2
    assert moments.provenance["excluded"].startswith("the first token of each text")
    edit = add(steps(model).at(0))
    seen: list[torch.Tensor] = []
    with (
        edit.on(model) as touched,
        model.attached([("resid_post", 0, lambda h, _: seen.append(h))]),
    ):
        model.hf(torch.tensor(encode(model.tokenizer, [f"{lines[0]}\n"])))
    assert touched.prefill == {0: tokens[0]}
    assert seen[0][0, 0, 0].item() == 1000.0


def test_the_first_token_of_each_row_of_a_padded_batch_is_spared(shaped):
    model = shaped(NO_BOS)
    edit = stack([add(steps(model).at(1), positions=kind) for kind in ("all", "prompt")] * 2)
    ids = encode(model.tokenizer, PROMPTS)
    assert decode(model, PROMPTS, edit=edit, max_new_tokens=1).touched.prefill == {
        1: sum(map(len, ids)) - len(ids)
    }


def test_a_model_with_bos_says_so(polyglot, lines):
    moments = collect(polyglot, lines.take(1), layers=[0])
    assert moments.provenance["excluded"] == "BOS and padding"
