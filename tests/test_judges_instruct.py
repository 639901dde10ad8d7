"""The rubric, how replies are read, and an instruct model on this machine as the judge."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import save_tiny, tiny_config

from steerlab.core.errors import SteerlabError
from steerlab.models.loading import PACKAGED, load
from steerlab.scores.judges import Answer, Instruct, score
from steerlab.scores.judges.rubric import messages, parse, version
from steerlab.scores.langid import identifier

TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
REFUSES = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    + TEMPLATE
)
ANSWER = Answer("Es regnet.", "How is the weather?\n", "How is the weather?", 4, "en", "de")


@pytest.mark.parametrize(
    ("reply", "rating"),
    [
        ("It fits. Rating: [[2]]", 2),
        ("It fits.\n\n**Rating: [[1]]**", 1),
        ("Rating:[[ 0 ]]", 0),
        ("Rating: [[0]] would be harsh.\nRating: [[1]]", 1),  # the last of several
        ("Rating: [[2]]\nOne could also have said [[0]]. 0", 2),  # the exact form before all others
        ("I give it [[1]].", 1),
        ("rating [[2]], not 0", 2),
        ("It is of no use.\n0", 0),
        ("The rating is 1.", 1),
        ("**2**", 2),
        ("2", 2),
        ("<think>Rating: [[0]]</think>Rating: [[2]]", 2),
        ("Rating: [[0]]</think>\nRating: [[2]]", 2),  # the template had opened the thought
        ("<think>Rating: [[2]], or rather", None),  # cut off in thought
        ("Rating: [[3]]", None),
        ("Rating: [[1.5]]", None),
        ("Rating: 1/2", None),
        ("It is 10", None),
        ("It is 0.2", None),
        ("It is -1", None),
        ("There are 2 of them", None),
        ("two", None),
        ("", None),
    ],
)
def test_how_a_reply_is_read(reply, rating):
    found = parse(reply)
    assert math.isnan(found) if rating is None else found == rating


def test_the_judge_is_told_the_languages_and_to_ignore_that_of_the_output():
    system, user = messages(ANSWER)
    assert (system["role"], user["role"]) == ("system", "user")
    for told in (
        "English",
        "German",
        "relevance",
        "coherence",
        "Rating: [[x]]",
        "no part of your task",
    ):
        assert told.lower() in system["content"].lower()
    assert ANSWER.question in user["content"]
    assert ANSWER.output in user["content"]


def test_braces_and_unknown_languages_are_taken_as_they_are():
    system, user = messages(Answer("{output} {0}", "p", "{source}", 0, "xx", "qqq_Latn"))
    assert "{output} {0}" in user["content"]
    assert "{source}" in user["content"]
    assert "qqq_Latn" in system["content"]


def test_another_wording_is_another_version(monkeypatch):
    import steerlab.scores.judges.rubric as rubric

    before = version()
    monkeypatch.setattr(rubric, "RUBRIC", rubric.RUBRIC + " ")
    assert version() != before


@pytest.fixture(scope="module")
def instruct(tmp_path_factory):
    """The folder of a tiny random model with a chat template: it says what it happens to say."""
    from transformers import AutoTokenizer

    folder = save_tiny(tmp_path_factory.mktemp("instruct"), "llama", lively=True, context=1024)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def chanting(tmp_path_factory):
    """A model whose next token depends on the last one alone: after "assistant:" it says its
    rating, and ends."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("chanting")
    tokenizer = AutoTokenizer.from_pretrained(PACKAGED)
    tokenizer.chat_template = TEMPLATE
    told = [*tokenizer(": Well. 1", add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    assert len(set(told)) == len(told)
    model = AutoModelForCausalLM.from_config(tiny_config("llama", layers=2, width=64, context=1024))
    with torch.no_grad():
        for block in model.model.layers:
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
        model.lm_head.weight.zero_()
        embedded = torch.nn.functional.normalize(model.model.embed_tokens.weight, dim=-1)
        for before, after in pairwise(told):
            model.lm_head.weight[after] = embedded[before]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_random_model_says_nothing_that_can_be_read(instruct, capfd):
    judge = Instruct(str(instruct), max_tokens=6)
    found = score([ANSWER] * 3, identifier=identifier(), judge=judge)
    assert np.isnan(found["rating"]).all()
    assert not found["relevant"].any()
    assert len(found["reply"]) == 3
    assert "3 of 3 replies of" in capfd.readouterr().err


def test_what_a_model_says_is_its_rating(chanting, capfd):
    judge = Instruct(str(chanting), max_tokens=24)
    found = judge.rate([ANSWER, Answer(" ", "p", "q", 0, "en", "de")])
    assert found["reply"][0] == " Well. 1"
    assert found["rating"].tolist() == [0.5, 0], "half, and an empty output without being asked"
    assert capfd.readouterr().err == ""


def test_the_name_holds_the_weights_the_rubric_and_the_settings(instruct, chanting):
    a, b = Instruct(str(instruct)), Instruct(str(chanting))
    assert load(instruct).fingerprint in a.name
    assert version() in a.name
    others = Instruct(str(instruct), max_tokens=5), Instruct(str(instruct), temperature=1)
    assert len({a.name, b.name, *(other.name for other in others)}) == 4


def test_a_template_without_a_system_role_gets_the_rubric_all_the_same(instruct):
    from steerlab.scores.judges.instruct import _chat

    model = load(instruct)
    with_role = _chat(model, messages(ANSWER))
    model.tokenizer.chat_template = REFUSES
    without = _chat(model, messages(ANSWER))
    for text in (with_role, without):
        assert "neutral examiner" in text
        assert ANSWER.output in text
        assert text.endswith("assistant:")
    assert "system:" in with_role
    assert "system:" not in without


def test_a_base_model_cannot_judge(polyglot):
    with pytest.raises(
        SteerlabError, match="polyglot has no chat template, .*give an instruct model"
    ):
        Instruct(polyglot).rate([ANSWER])
