"""The endpoint: OpenAI's protocol over plain HTTP and by its own client, rows together, who leaves,
who is refused."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from serving import SPANISH, TEXTS, TURNS, alone, asked, edit_of, pieces, said, until

import steerlab as sl
from steerlab.cli import main
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.engine.prompts import encode
from steerlab.engine.talk import Row, Talk
from steerlab.engine.walk import Walk
from steerlab.models.model import Model
from steerlab.studies.explore.session import Session
from steerlab.studies.local.server import Server
from steerlab.studies.serve import endpoint
from steerlab.studies.serve.batches import Batches
from steerlab.studies.serve.until import Until

JSON = {"content-type": "application/json"}


# -------------------------------------------------------------------------- what is said, and proof


def test_an_answer_is_what_generate_says_and_shows_that_it_was_steered(
    server: Server, polyglot: Model, directions: Directions, german: sl.Edit
) -> None:
    spanish = edit_of(directions, SPANISH)
    for steer, edit in ((None, None), ("none", None), ("german", german), (SPANISH, spanish)):
        whole = said(asked(server, prompt=TEXTS[0], steer=steer))
        [choice] = whole["choices"]
        assert choice["text"] == alone(polyglot, TEXTS[0], edit)
        assert choice["finish_reason"] == "length"
        assert whole["usage"]["completion_tokens"] == 12
        assert whole["steering"]["edit"] == (edit.digest if edit else None)
        output = sl.generate(polyglot, TEXTS[0], edit=edit, max_new_tokens=12, one_line=False)
        assert whole["steering"]["dose"] == pytest.approx(output.dose, rel=1e-4)
    by_model = said(asked(server, model="polyglot:german", prompt=TEXTS[0]))
    assert by_model["steering"]["edit"] == german.digest


def test_sampling_is_by_the_seed_that_is_told(server: Server, polyglot: Model) -> None:
    hot: dict[str, Any] = {"prompt": TEXTS[0], "temperature": 0.9}
    first = said(asked(server, **hot))
    seed = first["steering"]["seed"]
    wanted = alone(polyglot, TEXTS[0], None, temperature=0.9, seed=seed)
    assert first["choices"][0]["text"] == wanted
    assert said(asked(server, seed=seed, **hot))["choices"] == first["choices"]
    assert said(asked(server, seed=seed + 1, **hot))["choices"] != first["choices"]


def test_a_text_to_stop_at_is_not_said(server: Server, polyglot: Model) -> None:
    whole = alone(polyglot, TEXTS[0], None, 24)
    line, _, _ = whole.partition("\n")
    answer = said(asked(server, prompt=TEXTS[0], stop=["\n", "never said"], max_tokens=24))
    assert answer["choices"][0] == {
        "index": 0,
        "text": line,
        "logprobs": None,
        "finish_reason": "stop",
    }
    assert answer["usage"]["completion_tokens"] < 24


def test_a_stream_says_the_same_in_pieces(server: Server) -> None:
    wanted = said(asked(server, prompt=TEXTS[1], steer=SPANISH))
    options = {"include_usage": True}
    answer = asked(server, prompt=TEXTS[1], steer=SPANISH, stream=True, stream_options=options)
    *told, count = pieces(answer)
    texts = [each["choices"][0]["text"] for each in told]
    assert "".join(texts) == wanted["choices"][0]["text"]
    assert len(texts) > 6
    assert told[-1]["choices"][0]["finish_reason"] == "length"
    assert told[-1]["steering"] | {"seed": 0} == wanted["steering"] | {"seed": 0}
    assert count["usage"] == wanted["usage"]
    assert count["choices"] == []


def test_the_models_are_listed(server: Server) -> None:
    listed = httpx.get(f"{server.url}v1/models").json()
    assert [each["id"] for each in listed["data"]] == ["polyglot", "polyglot:german"]


# ------------------------------------------------------------------------------ OpenAI's own client


def test_the_client_of_openai(server: Server, polyglot: Model, directions: Directions) -> None:
    openai: Any = pytest.importorskip("openai")
    with openai.OpenAI(base_url=f"{server.url}v1", api_key="none", max_retries=0) as client:
        assert [each.id for each in client.models.list()] == ["polyglot", "polyglot:german"]
        keys: dict[str, Any] = {"model": "polyglot", "prompt": TEXTS[0], "max_tokens": 12}
        steer = {"steer": SPANISH}
        whole = client.completions.create(**keys, extra_body=steer)
        wanted = alone(polyglot, TEXTS[0], edit_of(directions, SPANISH))
        assert whole.choices[0].text == wanted
        assert whole.model_extra["steering"]["dose"] > 0.1
        streamed = client.completions.create(**keys, extra_body=steer, stream=True)
        assert "".join(each.choices[0].text for each in streamed) == wanted
        with pytest.raises(openai.BadRequestError, match="unknown language code 'xx'"):
            client.completions.create(**keys, extra_body={"steer": SPANISH | {"target": "xx"}})
        with pytest.raises(openai.NotFoundError, match="no model 'other' is served"):
            client.completions.create(**keys | {"model": "other"})
        with pytest.raises(openai.BadRequestError, match="no chat template; .*/v1/completions"):
            client.chat.completions.create(
                model="polyglot", messages=[{"role": "user", "content": "Hello."}]
            )


def test_a_talk_goes_through_the_chat_template(chatty: Server, polyglot: Model) -> None:
    text = "system: Short answers.\nuser: Where is it?\n"
    wanted = alone(polyglot, text, None)
    whole = said(asked(chatty, "chat/completions", messages=TURNS))
    assert whole["object"] == "chat.completion"
    assert whole["choices"][0]["message"] == {"role": "assistant", "content": wanted}
    told = pieces(asked(chatty, "chat/completions", messages=TURNS, stream=True))
    assert told[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(each["choices"][0]["delta"].get("content", "") for each in told) == wanted
    openai: Any = pytest.importorskip("openai")
    with openai.OpenAI(base_url=f"{chatty.url}v1", api_key="none", max_retries=0) as client:
        answer = client.chat.completions.create(
            model="polyglot:german", messages=TURNS, max_completion_tokens=12, temperature=0
        )
    assert answer.choices[0].message.content != wanted  # the control: it was steered


# ------------------------------------------------------------------------------------- many at once


def test_twenty_at_once_each_under_its_own_edit(
    server: Server, line: Batches, polyglot: Model, directions: Directions
) -> None:
    """Each says what it says alone, and they are said together: fewer steps than tokens."""
    steers: list[Any] = [
        None if number % 5 == 4 else SPANISH | {"target": target, "strength": 0.5 + number / 8}
        for number, target in enumerate(["es", "de", "fr", "ru"] * 5)
    ]
    steps = []
    step = Batches._step

    def counted(self: Batches, group: Any) -> None:
        steps.append(len(group.open))
        step(self, group)

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(20) as pool:
        patch.setattr(Batches, "_step", counted)
        answers = list(
            pool.map(
                lambda number: said(asked(server, prompt=TEXTS[number % 3], steer=steers[number])),
                range(20),
            )
        )
    for number, answer in enumerate(answers):
        edit = None if steers[number] is None else edit_of(directions, steers[number])
        assert answer["choices"][0]["text"] == alone(polyglot, TEXTS[number % 3], edit)
    assert len({answer["choices"][0]["text"] for answer in answers}) > 8
    assert max(steps) > 4
    assert len(steps) < 20 * 12 / 3
    assert line.waiting == 0


def test_too_many_are_told_to_come_again(
    server: Server, line: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "most", 0)
    answer = asked(server, prompt=TEXTS[0])
    assert answer.status_code == 429
    assert answer.json()["error"]["type"] == "rate_limit_error"
    assert answer.headers["retry-after"] == "1"


LONG: dict[str, Any] = {"prompt": TEXTS[0], "max_tokens": 400}


@pytest.mark.parametrize("streamed", [True, False])
def test_who_leaves_leaves_the_batch(
    server: Server, line: Batches, monkeypatch: pytest.MonkeyPatch, *, streamed: bool
) -> None:
    """A row of 400 tokens ends long before its last one, whether it is streamed or not."""
    steps: list[int] = []
    step = Batches._step

    def slow(self: Batches, group: Any) -> None:
        steps.append(len(group.open))
        time.sleep(0.05)  # so that the row goes on for 20 seconds, if it is let
        step(self, group)

    monkeypatch.setattr(Batches, "_step", slow)
    whole = {"model": "polyglot", "stream": streamed} | LONG
    url = f"{server.url}v1/completions"
    if streamed:
        with httpx.stream("POST", url, json=whole, timeout=60) as answer:
            next(answer.iter_lines())
            assert line.saying == 1
    else:
        with (
            httpx.Client(timeout=httpx.Timeout(60, read=0.5)) as client,
            pytest.raises(httpx.ReadTimeout),
        ):
            client.post(url, json=whole)
    until(lambda: line.waiting == 0)
    assert 0 < len(steps) < 400
    monkeypatch.undo()
    assert said(asked(server, prompt=TEXTS[0]))["choices"]  # and it serves on


# ---------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("changed", "status", "message"),
    [
        ({"prompt": ""}, 400, "there is nothing to continue"),
        ({"prompt": 7}, 400, "prompt: 7 was given; give a text, a list of texts, a list of token"),
        ({"prompt": ["a", 7]}, 400, "prompt: ['a', 7] was given; give a text, a list of texts"),
        ({"prompt": [[]]}, 400, "prompt: [[]] was given"),
        ({"prompt": [1, -5]}, 400, "prompt: [1, -5] was given"),
        ({"prompt": [True]}, 400, "prompt: [True] was given"),
        ({"prompt": ["a", ""]}, 400, "there is nothing to continue"),
        ({"prompt": [1, 12288]}, 400, "there is no token 12288; polyglot has those of 0 to 12287"),
        ({"prompt": [[1], [9] * 3000]}, 400, "was made for"),
        ({"prompt": ["a"] * 129}, 400, "129 prompts with 1 answers each make 129; ask for 128"),
        ({"prompt": "a" * 100_001}, 400, "100,001 characters"),
        ({"prompt": "word " * 3000}, 400, "was made for"),
        ({"model": "gpt-4"}, 404, "no model 'gpt-4' is served; 'polyglot' is"),
        ({"model": "polyglot:french"}, 400, "no edit 'french' is served; there are german"),
        ({"model": "polyglot:german", "steer": "none"}, 400, "give one of the two"),
        ({"max_tokens": 0}, 400, "max_tokens: "),
        ({"max_tokens": 100_000}, 400, "max_tokens: "),
        ({"temperature": -1}, 400, "temperature: "),
        ({"temperature": True}, 400, "true and false are no numbers"),
        ({"max_tokens": -1, "echo": True}, 400, "max_tokens: "),
        ({"n": 2}, 400, "n: at temperature 0, or without one, all 2 answers would be the same"),
        ({"n": 2, "temperature": 0}, 400, "give a temperature above 0, or leave n out"),
        ({"n": 33, "temperature": 1}, 400, "n: input should be less than or equal to 32, and 33"),
        ({"n": 0}, 400, "n: input should be greater than or equal to 1, and 0"),
        ({"n": 3, "best_of": 5, "temperature": 1}, 400, "best_of: 5 was given, and all answers"),
        ({"prompt": ["a"] * 9, "n": 20, "temperature": 1}, 400, "with 20 answers each make 180"),
        ({"top_p": 0.5}, 400, "top_p: 0.5 was given, and without a temperature nothing is sampled"),
        ({"top_p": 0, "temperature": 1}, 400, "top_p: input should be greater than 0, and 0"),
        ({"top_p": 1.5, "temperature": 1}, 400, "top_p: input should be less than or equal to 1"),
        ({"logprobs": 6}, 400, "logprobs: input should be less than or equal to 5, and 6 was"),
        ({"logprobs": True}, 400, "logprobs: true and false are no numbers"),
        ({"presence_penalty": 0.5}, 400, "presence_penalty: 0.5 is not served; leave it out, or"),
        ({"logit_bias": {"5": 1}}, 400, "logit_bias: {'5': 1} is not served; leave it out, or giv"),
        ({"suffix": "end"}, 400, "suffix: 'end' is not served; leave it out, or give ''"),
        ({"top_k": 5}, 400, "there is no key 'top_k'; did you mean 'top_p'?"),
        ({"stop": ["a"] * 5}, 400, "at most 4 texts to stop at"),
        ({"stop": ""}, 400, "none of them empty"),
        ({"steer": {"target": "es"}}, 400, "steer: layers: "),
        ({"steer": SPANISH | {"layers": [99]}}, 400, "has layers 0 to 7"),
        ({"steer": SPANISH | {"target": "en"}}, 400, "source and target are both 'en'"),
        ({"steer": SPANISH | {"operator": "dance"}}, 400, "there is no operator 'dance'"),
        ({"steer": SPANISH | {"strenght": 1}}, 400, "did you mean 'strength'"),
        ({"steer": 7}, 400, "steer"),
    ],
)
def test_a_bad_request_gets_a_sentence(
    server: Server, changed: dict[str, Any], status: int, message: str
) -> None:
    answer = asked(server, **{"prompt": TEXTS[0]} | changed)
    assert answer.status_code == status, answer.text
    told = answer.json()["error"]
    assert message in told["message"]
    assert told["type"] == "invalid_request_error"


def test_what_is_no_request(server: Server) -> None:
    url = f"{server.url}v1/completions"
    for body in ("", "[]", "[" * 5000, "\x00"):
        assert httpx.post(url, content=body, headers=JSON).status_code == 400
    plain = httpx.post(url, content=json.dumps({"prompt": "a"}))
    assert "application/json" in plain.json()["error"]["message"]
    huge = httpx.post(url, content=b"[" + b" " * 1_000_001, headers=JSON)
    assert "more than 1,000,000 bytes" in huge.json()["error"]["message"]
    assert httpx.get(url).status_code == 405
    missing = httpx.post(f"{server.url}v1/embeddings", json={})
    assert missing.status_code == 404
    assert "/v1/embeddings is not served" in missing.json()["error"]["message"]


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "rebound.example"},
        {"origin": "http://evil.example"},
        {"sec-fetch-site": "cross-site"},
    ],
)
def test_other_sites_are_refused(server: Server, headers: dict[str, str]) -> None:
    body = {"model": "polyglot", "prompt": TEXTS[0]}
    answer = httpx.post(f"{server.url}v1/completions", json=body, headers=headers)
    assert answer.status_code == 403
    assert "own" in answer.json()["error"]["message"]


def test_a_row_without_numbers_does_not_break_the_others(
    polyglot: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rows together, of which one has no numbers any more after its third token."""
    [ids] = encode(polyglot.tokenizer, [TEXTS[0]])
    talk = Talk(polyglot, [Row(ids, None, 8), Row(ids, None, 8)])
    step = Walk.step
    steps = []

    def broken(self: Walk, tokens: Any) -> torch.Tensor:
        logits = step(self, tokens).clone()
        steps.append(len(tokens))
        if len(steps) == 3:
            logits[0, 5] = float("nan")
        return logits

    monkeypatch.setattr(Walk, "step", broken)
    ends: dict[int, Any] = {}
    text = ""
    while talk.live:
        for piece in talk.step():
            text += piece.text if piece.row == 1 else ""
            if piece.end:
                ends[piece.row] = (piece.end, piece.tokens)
    assert ends == {0: ("failed", 3), 1: ("length", 8)}
    assert text == alone(polyglot, TEXTS[0], None, 8)
    assert steps == [2, 2, 2, 1, 1, 1, 1]  # the row that ended has left the cache


def test_what_breaks_inside_is_told(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(self: Talk) -> Any:
        raise ZeroDivisionError("inside")

    monkeypatch.setattr(Talk, "step", broken)
    answer = asked(server, prompt=TEXTS[0])
    assert answer.status_code == 500
    assert "(ZeroDivisionError: inside)" in answer.json()["error"]["message"]
    assert answer.json()["error"]["type"] == "server_error"
    monkeypatch.undo()
    assert said(asked(server, prompt=TEXTS[0]))["choices"]
    assert "Traceback" in capsys.readouterr().err


def test_edits_that_cannot_be_served(
    polyglot: Model, german: sl.Edit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = Session.__new__(Session)
    session.model = polyglot
    for name, edit, message in (
        ("none", german, "cannot be served as 'none'"),
        ("a:b", german, "without a colon"),
        ("both", sl.stack([german, german]), "is a stack"),
    ):
        with pytest.raises(SteerlabError, match=message):
            endpoint(session, edits={name: edit})
    assert main(["serve", "--edit", "german"]) == 2
    assert "as NAME=FILE" in capsys.readouterr().err
    assert main(["serve", "--edit", f"a={tmp_path / 'gone.safetensors'}"]) == 2
    assert "gone.safetensors" in capsys.readouterr().err
    assert main(["serve", "--rows", "0"]) == 2
    assert "--rows is 0" in capsys.readouterr().err


# --------------------------------------------------------------------------------- texts to stop at


def test_a_text_to_stop_at_is_found_however_it_is_cut() -> None:
    whole = "one two, two three. END of it"
    for stops, wanted in (
        (("END",), "one two, two three. "),
        (("two three", "END"), "one two, "),
        (("twelve",), whole),
        ((), whole),
        (("it!",), whole),
    ):
        for size in range(1, 8):
            found = Until(stops)
            parts = [whole[place : place + size] for place in range(0, len(whole), size)]
            text = "".join(map(found.add, parts))
            assert text + found.rest() == wanted
            assert found.reached == (wanted != whole)
