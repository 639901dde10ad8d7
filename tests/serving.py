"""What tests of the endpoint ask it, and what they compare its answers with."""

import json
import time
from typing import Any

import httpx

import steerlab as sl
from steerlab.core.directions import Directions
from steerlab.models.model import Model
from steerlab.studies.local.server import Server

TEXTS = ["The weather is nice today.\n", "We are going to the market.\n", "Where is my book?\n"]
SPANISH = {"target": "es", "layers": [5], "strength": 1.5}
TURNS = [
    {"role": "system", "content": "Short answers."},
    {
        "role": "user",
        "content": [{"type": "text", "text": "Where is "}, {"type": "text", "text": "it?"}],
    },
]


def asked(server: Server, path: str = "completions", **body: Any) -> httpx.Response:
    whole = {"model": "polyglot", "max_tokens": 12} | body
    return httpx.post(f"{server.url}v1/{path}", json=whole, timeout=120)


def said(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()


def edit_of(directions: Directions, steer: dict[str, Any]) -> sl.Edit:
    direction = directions.between("en", steer["target"]).at(*steer["layers"])
    return sl.add(direction, strength=steer["strength"])


def alone(model: Model, text: str, edit: sl.Edit | None, tokens: int = 12, **options: Any) -> str:
    given = {"max_new_tokens": tokens, "one_line": False} | options
    return str(sl.generate(model, text, edit=edit, **given))


def until(condition: Any) -> None:
    """Wait for what another thread does."""
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it did not come to that in a minute")


def pieces(answer: httpx.Response) -> list[Any]:
    """The events of a stream; the last has to say that it is done."""
    assert answer.headers["content-type"].startswith("text/event-stream")
    lines = [each for each in answer.text.split("\n\n") if each]
    assert all(each.startswith("data: ") for each in lines)
    assert lines[-1] == "data: [DONE]"
    return [json.loads(each.removeprefix("data: ")) for each in lines[:-1]]
