"""Log-probabilities by the endpoint: of answers and of echoed prompts, steered, as completions and
as chats have them, and as evaluation harnesses add them up."""

from typing import Any

import pytest
from serving import SPANISH, TEXTS, TURNS, alone, asked, edit_of, pieces, said

import steerlab as sl
from steerlab.core.directions import Directions
from steerlab.core.tokens import Spelling
from steerlab.engine.prompts import encode
from steerlab.engine.token_scores import TokenScore
from steerlab.models.model import Model
from steerlab.studies.explore.session import Session
from steerlab.studies.local.server import Server
from steerlab.studies.serve import endpoint
from steerlab.studies.serve.logprobs import of_chat, of_completion
from steerlab.studies.serve.reply import Placed

SCORED: dict[str, Any] = {"echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0}
MANY = "Wir sagen: 你好 🙂, mañana.\n"  # characters of several tokens


def nats(model: Model, text: str, edit: sl.Edit | None) -> float:
    """The log-likelihood of a text after BOS, by the library's own scoring."""
    [ids] = encode(model.tokenizer, [text])
    return -float(sl.cross_entropy(model, text, edit)) * (len(ids) - 1)


# --------------------------------------------------------------------------------- echoed prompts


def test_a_likelihood_by_echo_is_that_of_the_library(
    server: Server, polyglot: Model, directions: Directions, german: sl.Edit
) -> None:
    sums = set()
    spanish = edit_of(directions, SPANISH)
    for steer, edit in ((None, None), ("german", german), (SPANISH, spanish)):
        answer = said(asked(server, prompt=[*TEXTS, MANY], steer=steer, **SCORED))
        for text, choice in zip([*TEXTS, MANY], answer["choices"], strict=True):
            told = choice["logprobs"]
            assert told["token_logprobs"][0] is None
            assert told["top_logprobs"][0] is None
            likelihood = sum(told["token_logprobs"][1:-1])
            assert likelihood == pytest.approx(nats(polyglot, text, edit), abs=1e-3)
            sums.add(round(likelihood, 2))
    assert len(sums) == 3 * 4  # the control: edits change it


def test_as_evaluation_harnesses_add_up(server: Server, polyglot: Model) -> None:
    """lm-eval sends tokens, adds up from behind the context to before the one token that is said,
    and takes for greedy what has the number of the likeliest."""
    tokenizer = polyglot.tokenizer
    context, greedy = TEXTS[0], alone(polyglot, TEXTS[0], None, 4)
    for following, likeliest in ((greedy, True), (" Where is it?", False)):
        before = encode(tokenizer, [context])[0]
        whole = before + tokenizer(following, add_special_tokens=False).input_ids
        [choice] = said(asked(server, prompt=[whole], seed=1234, **SCORED))["choices"]
        told = choice["logprobs"]
        assert len(told["token_logprobs"]) == len(told["top_logprobs"]) == len(whole) + 1
        part = slice(len(before), -1)
        likelihood = sum(told["token_logprobs"][part])
        both = context + following
        assert encode(tokenizer, [both]) == [whole]
        wanted = nats(polyglot, both, None) - nats(polyglot, context, None)
        assert likelihood == pytest.approx(wanted, abs=1e-3)
        found = all(
            own == max(others.values())
            for own, others in zip(
                told["token_logprobs"][part], told["top_logprobs"][part], strict=True
            )
        )
        assert found == likeliest


def test_the_token_that_ends_a_text_is_told(
    server: Server, polyglot: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else whoever takes the last token off would take one of the prompt's."""
    answer = said(asked(server, prompt=TEXTS[0], **SCORED))
    [ids] = encode(polyglot.tokenizer, [TEXTS[0] + answer["choices"][0]["text"][len(TEXTS[0]) :]])
    monkeypatch.setattr(polyglot.hf.generation_config, "eos_token_id", [ids[-1]])
    [ended] = said(asked(server, prompt=TEXTS[0], **SCORED))["choices"]
    assert ended["finish_reason"] == "stop"
    assert ended["text"] == TEXTS[0]
    assert ended["logprobs"] == answer["choices"][0]["logprobs"]


def test_an_edit_of_what_is_generated_gives_no_likelihood_of_a_prompt(
    polyglot: Model, directions: Directions
) -> None:
    """Which would be that of the model as it is."""
    step = directions.between("en", "es").at(5)
    later = sl.add(step, strength=1.5, positions="generated")
    other = endpoint(Session(polyglot, directions), edits={"later": later})
    other.start()
    try:
        for tokens in (0, 1):
            body = SCORED | {"prompt": TEXTS[0], "steer": "later", "max_tokens": tokens}
            answer = asked(other, **body)
            assert answer.status_code == 400
            assert "the edit touched no position" in answer.json()["error"]["message"]
    finally:
        other.close()


def test_an_echo_has_its_prompt_first_and_offsets_that_fit(server: Server, polyglot: Model) -> None:
    for prompt in (TEXTS[0], MANY):
        body: dict[str, Any] = {"prompt": prompt, "echo": True, "logprobs": 3, "max_tokens": 8}
        whole = said(asked(server, **body))
        [choice] = whole["choices"]
        assert choice["text"] == prompt + alone(polyglot, prompt, None, 8)
        told = choice["logprobs"]
        assert len(told["tokens"]) == whole["usage"]["total_tokens"]
        assert told["tokens"][0] == polyglot.tokenizer.bos_token
        places = told["text_offset"]
        assert places == sorted(places)
        for token, place in list(zip(told["tokens"], places, strict=True))[1:]:
            assert token.startswith("bytes:\\x") or choice["text"][place:].startswith(token)
        assert places[len(encode(polyglot.tokenizer, [prompt])[0])] == len(prompt)
        for own, others in list(zip(told["token_logprobs"], told["top_logprobs"], strict=True))[1:]:
            assert own in others.values()
            assert own <= max(others.values()) <= 0
            assert 3 <= len(others) <= 4 or prompt == MANY  # where pieces of characters are alike
        [bare] = said(asked(server, **body | {"logprobs": None}))["choices"]
        assert bare == choice | {"logprobs": None}
    assert any(token.startswith("bytes:") for token in told["tokens"])


def test_an_echo_is_streamed(server: Server) -> None:
    body: dict[str, Any] = {"prompt": TEXTS[:2], "echo": True, "logprobs": 2, "steer": SPANISH}
    whole = said(asked(server, **body))
    texts, told = ["", ""], [[], []]  # type: ignore[var-annotated]
    for each in pieces(asked(server, stream=True, **body)):
        [choice] = each["choices"]
        texts[choice["index"]] += choice["text"]
        if choice["logprobs"]:
            told[choice["index"]] += choice["logprobs"]["token_logprobs"]
    assert texts == [choice["text"] for choice in whole["choices"]]
    for numbers, choice in zip(told, whole["choices"], strict=True):
        assert numbers[0] is None
        assert numbers[1:] == pytest.approx(choice["logprobs"]["token_logprobs"][1:], abs=1e-4)


def test_a_prompt_may_be_read_alone(server: Server) -> None:
    one = said(asked(server, prompt=TEXTS[0], **SCORED))
    none = said(asked(server, prompt=TEXTS[0], **SCORED | {"max_tokens": 0}))
    [choice] = none["choices"]
    assert choice["text"] == TEXTS[0]
    assert choice["finish_reason"] == "length"
    wanted = one["choices"][0]["logprobs"]
    assert choice["logprobs"] == {key: value[:-1] for key, value in wanted.items()}
    assert none["usage"]["completion_tokens"] == 0
    streamed = pieces(asked(server, prompt=TEXTS[0], stream=True, **SCORED | {"max_tokens": 0}))
    assert "".join(each["choices"][0]["text"] for each in streamed) == TEXTS[0]


# ---------------------------------------------------------------------------------------- answers


def test_the_tokens_of_an_answer_are_its_text(server: Server, polyglot: Model) -> None:
    """Sampled hot and from a share, they have the scores that the same text has when it is
    read."""
    body: dict[str, Any] = {"temperature": 1.2, "top_p": 0.9, "seed": 5, "logprobs": 0}
    [choice] = said(asked(server, prompt=TEXTS[0], steer=SPANISH, **body))["choices"]
    told = choice["logprobs"]
    assert "".join(told["tokens"]) == choice["text"]
    assert told["text_offset"][0] == 0
    assert [len(others) for others in told["top_logprobs"]] == [1] * 12
    [ids] = encode(polyglot.tokenizer, TEXTS[:1])
    whole = ids + polyglot.tokenizer(choice["text"], add_special_tokens=False).input_ids
    [read] = said(asked(server, prompt=whole, steer=SPANISH, **SCORED))["choices"]
    part = slice(len(ids), -1)
    assert read["logprobs"]["tokens"][part] == told["tokens"]
    wanted = pytest.approx(read["logprobs"]["token_logprobs"][part], abs=1e-3)
    assert told["token_logprobs"] == wanted


def test_tokens_of_a_text_to_stop_at_are_not_told(server: Server, polyglot: Model) -> None:
    whole = alone(polyglot, TEXTS[0], None, 24)
    line, _, _ = whole.partition("\n")
    body: dict[str, Any] = {"prompt": TEXTS[0], "stop": "\n", "max_tokens": 24, "logprobs": 1}
    [choice] = said(asked(server, **body))["choices"]
    assert choice["text"] == line
    assert "".join(choice["logprobs"]["tokens"]) == line
    told = []
    for each in pieces(asked(server, stream=True, **body)):
        told += (each["choices"][0]["logprobs"] or {"tokens": []})["tokens"]
    assert told == choice["logprobs"]["tokens"]


def test_chats_have_a_form_of_their_own(chatty: Server, polyglot: Model) -> None:
    openai: Any = pytest.importorskip("openai")
    text = "system: Short answers.\nuser: Where is it?\n"
    body: dict[str, Any] = {"model": "polyglot", "messages": TURNS, "max_tokens": 12}
    with openai.OpenAI(base_url=f"{chatty.url}v1", api_key="none", max_retries=0) as client:
        answer = client.chat.completions.create(**body, logprobs=True, top_logprobs=20)
        [choice] = answer.choices
        content = choice.logprobs.content
        assert "".join(each.token for each in content) == choice.message.content
        assert b"".join(bytes(each.bytes) for each in content).decode() == choice.message.content
        for each in content:
            assert len(each.top_logprobs) == 20
            numbers = [other.logprob for other in each.top_logprobs]
            assert numbers == sorted(numbers, reverse=True)
            assert each.logprob == numbers[0]  # greedy
            assert each.token == each.top_logprobs[0].token
        completion = client.completions.create(
            model="polyglot", prompt=text, max_tokens=12, logprobs=5
        )
        wanted = completion.choices[0].logprobs.token_logprobs
        assert [each.logprob for each in content] == pytest.approx(wanted, abs=1e-4)
        bare = client.chat.completions.create(**body, logprobs=True).choices[0]
        assert [each.top_logprobs for each in bare.logprobs.content] == [[]] * 12
        streamed = []
        for each in client.chat.completions.create(
            **body, logprobs=True, top_logprobs=20, stream=True
        ):
            if each.choices[0].logprobs:
                streamed += each.choices[0].logprobs.content
        assert [each.token for each in streamed] == [each.token for each in content]
        assert client.chat.completions.create(**body).choices[0].logprobs is None
        for changed, message in (
            ({"top_logprobs": 3}, "top_logprobs: 3 was given without log-probabilities; give"),
            ({"logprobs": True, "top_logprobs": 21}, "top_logprobs: .* 20, and 21 was given"),
            ({"logprobs": 3}, "logprobs: "),
        ):
            with pytest.raises(openai.BadRequestError, match=message):
                client.chat.completions.create(**body, **changed)


def test_the_client_of_openai_scores_texts(server: Server, polyglot: Model) -> None:
    openai: Any = pytest.importorskip("openai")
    ids = encode(polyglot.tokenizer, TEXTS)
    with openai.OpenAI(base_url=f"{server.url}v1", api_key="none", max_retries=0) as client:
        keys: dict[str, Any] = {"model": "polyglot:german", **SCORED}
        by_ids = client.completions.create(prompt=ids, **keys)
        by_text = client.completions.create(prompt=TEXTS, **keys)
        for one, other, text in zip(by_ids.choices, by_text.choices, TEXTS, strict=True):
            assert one.logprobs == other.logprobs
            assert one.text == other.text
            assert one.text.startswith(text)
        with pytest.raises(openai.BadRequestError, match="with 0 there is nothing to say; give 1"):
            client.completions.create(model="polyglot", prompt="a", max_tokens=0)


def test_what_cannot_be_is_written_as_openai_does(polyglot: Model) -> None:
    spelling = Spelling(polyglot.tokenizer)
    [token] = polyglot.tokenizer("The", add_special_tokens=False).input_ids
    score = TokenScore(token, float("-inf"), ((token, -0.5), (polyglot.tokenizer.bos_token_id, -2)))
    told = of_completion(spelling, [Placed(score, 3)], shift=4)
    assert told == {
        "tokens": ["The"],
        "token_logprobs": [-9999.0],
        "top_logprobs": [{"The": -0.5, polyglot.tokenizer.bos_token: -2}],
        "text_offset": [7],
    }
    [one] = of_chat(spelling, [Placed(score, 3)])["content"]
    assert one["logprob"] == -9999.0
    assert one["bytes"] == list(b"The")
