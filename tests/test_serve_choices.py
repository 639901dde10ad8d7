"""Several answers to a prompt and several prompts in a request, each as it is alone; sampling from
a share of the probability; what the protocol has and is not served."""

import time
from typing import Any

import httpx
import pytest
from serving import SPANISH, TEXTS, TURNS, alone, asked, edit_of, pieces, said, until

from steerlab.core.directions import Directions
from steerlab.core.random import derived
from steerlab.engine.prompts import encode
from steerlab.models.model import Model
from steerlab.studies.local.server import Server
from steerlab.studies.serve.batches import Batches

HOT: dict[str, Any] = {"temperature": 0.9, "seed": 11}


def seeds(count: int) -> list[int]:
    """Those of several answers, of which the first has the request's."""
    return [11, *(derived(f"answer {index}", 11) >> 32 for index in range(1, count))]


# ------------------------------------------------------------------------------------------ answers


def test_several_answers_are_each_what_generate_says_by_its_seed(
    server: Server, polyglot: Model, directions: Directions
) -> None:
    edit = edit_of(directions, SPANISH)
    whole = said(asked(server, prompt=TEXTS[0], steer=SPANISH, n=5, **HOT))
    assert [each["index"] for each in whole["choices"]] == list(range(5))
    told = [each["steering"]["seed"] for each in whole["choices"]]
    assert told == seeds(5)
    assert all(0 <= seed < 2**31 for seed in told)
    assert whole["steering"]["seed"] == 11
    doses = []
    for choice, seed in zip(whole["choices"], told, strict=True):
        wanted = alone(polyglot, TEXTS[0], edit, temperature=0.9, seed=seed)
        assert choice["text"] == wanted
        assert choice["steering"]["edit"] == edit.digest
        doses.append(choice["steering"]["dose"])
    assert len({each["text"] for each in whole["choices"]}) > 2
    assert whole["steering"]["dose"] == pytest.approx(sum(doses) / 5)
    assert len(set(doses)) > 1
    [ids] = encode(polyglot.tokenizer, TEXTS[:1])
    assert whole["usage"]["prompt_tokens"] == len(ids)  # which is read once, as OpenAI counts
    assert whole["usage"]["completion_tokens"] == 5 * 12
    # The first is the answer that a request for one gets.
    one = said(asked(server, prompt=TEXTS[0], steer=SPANISH, **HOT))
    assert one["choices"][0]["text"] == whole["choices"][0]["text"]
    assert "steering" not in one["choices"][0]


def test_several_answers_are_streamed_beside_each_other(server: Server) -> None:
    body: dict[str, Any] = {"prompt": TEXTS[1], "n": 3, **HOT}
    whole = said(asked(server, **body))
    answer = asked(server, stream=True, stream_options={"include_usage": True}, **body)
    *told, count = pieces(answer)
    texts = ["", "", ""]
    order = []
    ends = {}
    for each in told:
        [choice] = each["choices"]
        order.append(choice["index"])
        texts[choice["index"]] += choice["text"]
        if choice["finish_reason"]:
            ends[choice["index"]] = each["steering"]
    assert texts == [each["text"] for each in whole["choices"]]
    assert ends == {each["index"]: each["steering"] for each in whole["choices"]}
    assert order != sorted(order)
    assert order[:3] == [0, 1, 2]
    assert count["usage"] == whole["usage"]


def test_a_list_of_prompts_is_each_prompt_alone(
    server: Server, polyglot: Model, directions: Directions
) -> None:
    """As texts and as tokens, with two answers each; those of a prompt come beside each other."""
    edit = edit_of(directions, SPANISH)
    ids = encode(polyglot.tokenizer, TEXTS)
    by_texts = said(asked(server, prompt=TEXTS, steer=SPANISH, n=2, **HOT))
    by_ids = said(asked(server, prompt=ids, steer=SPANISH, n=2, **HOT))
    assert by_texts["choices"] == by_ids["choices"]
    assert [each["index"] for each in by_texts["choices"]] == list(range(6))
    for index, choice in enumerate(by_texts["choices"]):
        wanted = alone(polyglot, TEXTS[index // 2], edit, temperature=0.9, seed=seeds(2)[index % 2])
        assert choice["text"] == wanted
    assert by_texts["usage"]["prompt_tokens"] == sum(map(len, ids))
    one = said(asked(server, prompt=ids[2]))
    assert one["choices"][0]["text"] == alone(polyglot, TEXTS[2], None)
    # Tokens are taken as they are: without BOS the model says something else.
    bare = said(asked(server, prompt=ids[2][1:]))
    assert bare["usage"]["prompt_tokens"] == len(ids[2]) - 1
    assert bare["choices"][0]["text"] != one["choices"][0]["text"]


def test_more_answers_than_rows_wait_for_room(
    server: Server, line: Batches, polyglot: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "rows", 2)
    steps = []
    step = Batches._step

    def counted(self: Batches, group: Any) -> None:
        steps.append(self.saying)
        step(self, group)

    monkeypatch.setattr(Batches, "_step", counted)
    whole = said(asked(server, prompt=TEXTS, n=3, **HOT))
    assert max(steps) == 2
    for index, choice in enumerate(whole["choices"]):
        seed = seeds(3)[index % 3]
        wanted = alone(polyglot, TEXTS[index // 3], None, temperature=0.9, seed=seed)
        assert choice["text"] == wanted


def test_who_leaves_takes_all_answers_along(
    server: Server, line: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that are being said, and those that wait for room."""
    monkeypatch.setattr(line, "rows", 3)
    step = Batches._step
    steps = []

    def slow(self: Batches, group: Any) -> None:
        steps.append(len(group.open))
        time.sleep(0.05)
        step(self, group)

    monkeypatch.setattr(Batches, "_step", slow)
    whole = {"model": "polyglot", "prompt": TEXTS[0], "max_tokens": 400, "n": 5, "stream": True}
    with httpx.stream("POST", f"{server.url}v1/completions", json=whole | HOT, timeout=60) as told:
        next(told.iter_lines())
        assert line.saying == 3
    until(lambda: line.waiting == 0)
    assert line.saying == 0
    assert len(steps) < 400
    monkeypatch.undo()
    assert said(asked(server, prompt=TEXTS[0]))["choices"]


def test_an_answer_that_fails_fails_the_request(
    server: Server, line: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = Batches._ended

    def broken(self: Batches, group: Any, row: int, reason: str, tokens: int) -> Any:
        if group.choices[row].index == 1:
            raise ZeroDivisionError("inside")
        return ended(self, group, row, reason, tokens)

    monkeypatch.setattr(Batches, "_ended", broken)
    assert asked(server, prompt=TEXTS[0], n=3, **HOT).status_code == 500
    streamed = asked(server, prompt=TEXTS[0], n=3, stream=True, **HOT)
    assert '"error"' in streamed.text
    assert "[DONE]" not in streamed.text
    until(lambda: line.waiting == 0)


# ------------------------------------------------------------------------------ top_p, and clients


def test_a_share_of_the_probability(server: Server, polyglot: Model) -> None:
    for share in (0.5, 1):
        answer = said(asked(server, prompt=TEXTS[0], top_p=share, **HOT))
        wanted = alone(polyglot, TEXTS[0], None, temperature=0.9, seed=11, top_p=share)
        assert answer["choices"][0]["text"] == wanted
    greedy = alone(polyglot, TEXTS[0], None)
    assert said(asked(server, prompt=TEXTS[0], top_p=1e-9, **HOT))["choices"][0]["text"] == greedy
    cold = said(asked(server, prompt=TEXTS[0], top_p=0.9, temperature=0))
    assert cold["choices"][0]["text"] == greedy
    assert wanted != greedy


NEUTRAL: dict[str, Any] = {
    "presence_penalty": 0,
    "frequency_penalty": 0.0,
    "logit_bias": {},
    "n": 1,
    "top_p": 1,
    "stop": None,
    "user": "somebody",
}
NEUTRAL_IN_CHATS: dict[str, Any] = {
    "response_format": {"type": "text"},
    "tools": [],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "functions": [],
    "function_call": "none",
    "modalities": ["text"],
    "audio": None,
    "prediction": None,
    "reasoning_effort": "none",
    "verbosity": "medium",
    "web_search_options": None,
    "store": False,
    "service_tier": "auto",
    "metadata": {"session": "1"},
    "prompt_cache_key": "1",
    "safety_identifier": "1",
    "logprobs": False,
    "top_logprobs": 0,
}


def test_openais_client_asks_for_several_and_sends_what_changes_nothing(
    chatty: Server, polyglot: Model
) -> None:
    openai: Any = pytest.importorskip("openai")
    text = "system: Short answers.\nuser: Where is it?\n"
    hot: dict[str, Any] = {"temperature": 0.9, "seed": 11, "top_p": 0.9, "n": 2, "max_tokens": 12}
    wanted = [
        alone(polyglot, text, None, temperature=0.9, seed=seed, top_p=0.9) for seed in seeds(2)
    ]
    with openai.OpenAI(base_url=f"{chatty.url}v1", api_key="none", max_retries=0) as client:
        talk: dict[str, Any] = {"model": "polyglot", "messages": TURNS}
        answer = client.chat.completions.create(**talk, **hot)
        assert [each.message.content for each in answer.choices] == wanted
        told = ["", ""]
        roles = []
        for each in client.chat.completions.create(**talk, **hot, stream=True):
            told[each.choices[0].index] += each.choices[0].delta.content or ""
            roles.append(each.choices[0].delta.role)
        assert told == wanted
        assert roles.count("assistant") == 2
        plain = client.chat.completions.create(**talk, max_tokens=12)
        everything: dict[str, Any] = {**talk, "max_tokens": 12, **NEUTRAL, **NEUTRAL_IN_CHATS}
        neutral = client.chat.completions.create(**everything)
        assert neutral.choices[0].message.content == plain.choices[0].message.content
        completion = client.completions.create(
            model="polyglot",
            prompt=text,
            max_tokens=12,
            suffix="",
            best_of=1,
            echo=False,
            **NEUTRAL,
        )
        assert completion.choices[0].text == plain.choices[0].message.content
        tool = {"type": "function", "function": {"name": "look", "parameters": {}}}
        for key, value in {
            "response_format": {"type": "json_object"},
            "tools": [tool],
            "tool_choice": "required",
            "functions": [{"name": "look"}],
            "function_call": {"name": "look"},
            "modalities": ["text", "audio"],
            "audio": {"voice": "ash", "format": "wav"},
            "prediction": {"type": "content", "content": "a"},
            "reasoning_effort": "high",
            "verbosity": "low",
            "web_search_options": {},
            "store": True,
            "service_tier": "flex",
            "presence_penalty": 0.1,
            "frequency_penalty": -1,
            "logit_bias": {"50": -100},
        }.items():
            with pytest.raises(openai.BadRequestError, match=f"{key}: .* is not served; leave it"):
                client.chat.completions.create(**talk, **{key: value})


def test_the_seed_of_each_answer_is_its_own() -> None:
    assert (
        len({derived(f"answer {index}", seed) >> 32 for index in range(9) for seed in range(9)})
        == 81
    )
