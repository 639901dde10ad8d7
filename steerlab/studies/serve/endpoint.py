"""The endpoint: three routes of OpenAI's protocol, the same guard as the explorer's page, and one
thread that says many rows at once."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from steerlab.core.errors import SteerlabError
from steerlab.core.random import derived
from steerlab.core.tokens import Spelling
from steerlab.edits import Edit
from steerlab.engine.prompts import chat, encode
from steerlab.engine.talk import Row
from steerlab.studies.explore.session import Session
from steerlab.studies.explore.setting import Steering
from steerlab.studies.local.line import Failed, Full, Job
from steerlab.studies.local.server import Server, listen, post, read_json
from steerlab.studies.serve.asked import UNSTEERED, Asked, AskedChat, AskedCompletion
from steerlab.studies.serve.batches import MOST_ROWS, Batches, Echoed, Ended, Said, Wanted, named
from steerlab.studies.serve.wire import Answer, error, event

try:
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response, StreamingResponse
    from starlette.routing import Route
except ImportError as missing:
    raise SteerlabError(
        "the endpoint needs the extra `explore`; install it, with pip install 'steerlab[explore]'"
    ) from missing

BODY = 1_000_000  # bytes of a request at most


class NoSuchModel(SteerlabError):
    """A request names a model that is not served."""


def endpoint(
    session: Session,
    *,
    edits: Mapping[str, Edit] | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    rows: int = MOST_ROWS,
) -> Server:
    """A server of OpenAI's `/v1/chat/completions`, `/v1/completions` and `/v1/models` that listens
    already; `run` or `start` lets it answer.

    A request's `steer` says how its row is steered; requests of unlike edits are said together.
    Raises `SteerlabError` for edits that do not go on the model, before anything is served.

    Args:
        session: the model, and what directions are taken or fitted from.
        edits: more edits, by the names under which requests ask for them.
        host: the address that it listens on, by which it is also called.
        port: 0 for a free one.
        rows: how many answers are said at once.
    """
    served = dict(edits or {})
    for name, edit in served.items():
        _need_edit(session, name, edit)
    at = listen(host, port)
    line = Batches(session, rows=rows)
    routes = _Routes(line, served)
    app = Starlette(
        routes=[
            Route("/v1/models", routes.models),
            Route("/v1/chat/completions", partial(routes.answer, AskedChat), methods=["POST"]),
            Route("/v1/completions", partial(routes.answer, AskedCompletion), methods=["POST"]),
        ],
        exception_handlers={HTTPException: _no_such_page},
    )
    app.add_middleware(at.guard(refused=partial(error, kind="permission_error")))
    return Server(at, app, line)


def _need_edit(session: Session, name: str, edit: Edit) -> None:
    """Raise for an edit that cannot be served under a name."""
    if name == UNSTEERED or not name or ":" in name:
        raise SteerlabError(
            f"an edit cannot be served as {name!r}; give a name without a colon, and not "
            f"{UNSTEERED!r}, which is the model as it is"
        )
    if edit.rows is not None:
        raise SteerlabError(f"the edit {name!r} is a stack; serve each of its edits by itself")
    edit.changes(session.model)


async def _no_such_page(request: Request, raised: Exception) -> Response:
    status = raised.status_code if isinstance(raised, HTTPException) else 500
    told = f"{request.method} {request.url.path} is not served; there are /v1/models, "
    told += "/v1/completions and /v1/chat/completions"
    return JSONResponse(error(told), status)


class _Routes:
    """What answers requests.

    Args:
        line: says what they ask for.
        edits: those that are served by name.
    """

    def __init__(self, line: Batches, edits: Mapping[str, Edit]):
        self.line = line
        self.edits = edits
        self.model = line.session.model
        self.spelling = Spelling(self.model.tokenizer)

    async def models(self, request: Request) -> Response:
        """The model, and the model under each edit that has a name."""
        names = [self.model.name, *(f"{self.model.name}:{name}" for name in self.edits)]
        listed = [
            {"id": name, "object": "model", "created": 0, "owned_by": "steerlab"} for name in names
        ]
        return JSONResponse({"object": "list", "data": listed})

    async def answer(self, kind: type[Asked], request: Request) -> Response:
        """An answer, whole or streamed; what cannot be answered is told before anything runs."""
        try:
            asked = kind.of(await read_json(request, most=BODY))
            answer, wanted = self._wanted(asked)
            loop, events = asyncio.get_running_loop(), asyncio.Queue[Any]()
            job = Job(wanted, lambda each: post(loop, events, each))
            self.line.submit(job)
        except NoSuchModel as problem:
            return JSONResponse(error(str(problem)), 404)
        except Full as problem:
            return JSONResponse(error(str(problem), "rate_limit_error"), 429, {"retry-after": "1"})
        except SteerlabError as problem:
            return JSONResponse(error(str(problem)), 400)
        if asked.stream:
            return StreamingResponse(
                _streamed(answer, job, events, counted=asked.counted),
                media_type="text/event-stream",
            )
        return await _whole(request, answer, job, events)

    def _wanted(self, asked: Asked) -> tuple[Answer, Wanted]:
        """What a request comes to; raises `SteerlabError` for what cannot be run."""
        steer = self._steer(asked)
        prompts = self._prompts(asked)
        seed = secrets.randbits(31) if asked.seed is None else asked.seed
        seeds = [_seed_of(seed, index) for index in range(asked.answers)]
        rows = self._rows(asked, [ids for _, ids in prompts], seeds)
        echo: tuple[str, ...] = ()
        if asked.echoes:
            echo = tuple(text for text, _ in prompts for _ in seeds)
        answer = Answer(
            isinstance(asked, AskedChat),
            asked.model,
            sum(len(ids) for _, ids in prompts),
            tuple(row.seed for row in rows),
            None if asked.likeliest is None else self.spelling,
            echo,
        )
        return answer, Wanted(rows, steer, asked.stops, echo, silent=asked.new_tokens == 0)

    def _rows(
        self, asked: Asked, prompts: Sequence[list[int]], seeds: Sequence[int]
    ) -> tuple[Row, ...]:
        """What is run for each answer to each prompt; raises for what cannot be."""
        rows = tuple(
            Row(
                ids,
                None,
                max(asked.new_tokens, 1),
                float(asked.temperature or 0),
                seed,
                # At temperature 0 the likeliest is taken, which is in every share.
                top_p=asked.share if asked.temperature else 1.0,
                likeliest=asked.likeliest,
                reads=asked.echoes and asked.likeliest is not None,
            )
            for ids in prompts
            for seed in seeds
        )
        for row in rows:
            row.need(self.model)
        return rows

    def _prompts(self, asked: Asked) -> list[tuple[str, list[int]]]:
        """The text and the tokens of each prompt; those that are given as tokens are taken as they
        are."""
        tokenizer = self.model.tokenizer
        if isinstance(asked, AskedChat):
            text = chat(tokenizer, asked.turns)
            return [(text, encode(tokenizer, [text])[0])]
        assert isinstance(asked, AskedCompletion)
        prompts = []
        for prompt in asked.prompts:
            if isinstance(prompt, str):
                prompts.append((prompt, encode(tokenizer, [prompt])[0]))
                continue
            if (largest := max(prompt)) >= self.model.embedded:
                raise SteerlabError(
                    f"prompt: there is no token {largest}; {self.model.name} has those of 0 to "
                    f"{self.model.embedded - 1}"
                )
            prompts.append((tokenizer.decode(prompt, skip_special_tokens=True), prompt))
        return prompts

    def _steer(self, asked: Asked) -> Steering | Edit | None:
        """How a request is steered: by its `steer`, else by the name behind the model's."""
        base, colon, name = asked.model.rpartition(":")
        if asked.model == self.model.name:
            name = ""
        elif not colon or base != self.model.name:
            raise NoSuchModel(
                f"no model {asked.model!r} is served; {self.model.name!r} is, and behind a colon "
                "the name of an edit"
            )
        steer = asked.steering
        if name and steer not in (None, name):
            raise SteerlabError(
                f"the model is asked for with the edit {name!r}, and steer= says something else; "
                "give one of the two"
            )
        steer = name or steer
        if isinstance(steer, Steering):
            self.line.session.need(steer)
            for layer in steer.layers:
                self.model.need_layer(layer)
            return steer
        return None if steer in (None, "", UNSTEERED) else named(self.edits, str(steer))


async def _streamed(
    answer: Answer, job: Job[Wanted], events: "asyncio.Queue[Any]", *, counted: bool
) -> AsyncIterator[str]:
    """The events of an answer; whoever leaves stops it."""
    ends: list[Ended] = []
    try:
        for first in answer.begun():
            yield event(first)
        while (each := await events.get()) is not None:
            if isinstance(each, Ended):
                ends.append(each)
                yield event(answer.end(each))
            elif isinstance(each, Failed):
                yield event(error(each.message, _kind(each)))
                return
            else:
                yield event(answer.piece(each))
        if counted and ends:
            yield event(answer.count(ends))
        yield event("[DONE]")
    finally:
        job.stopped.set()


async def _whole(
    request: Request, answer: Answer, job: Job[Wanted], events: "asyncio.Queue[Any]"
) -> Response:
    """The answer in one piece; whoever leaves before it is there stops it."""
    leaving = asyncio.create_task(_until_gone(request, job))
    said: list[Said | Echoed] = []
    ends: dict[int, Ended] = {}
    failed: Failed | None = None
    try:
        while failed is None and (each := await events.get()) is not None:
            if isinstance(each, Ended):
                ends[each.index] = each
            elif isinstance(each, Failed):
                failed = each  # one choice without an answer is none to the request
            else:
                said.append(each)
    finally:
        job.stopped.set()
        leaving.cancel()
        with suppress(asyncio.CancelledError):
            await leaving
    if failed is not None:
        return JSONResponse(error(failed.message, _kind(failed)), 500 if failed.ours else 400)
    if len(ends) == len(answer.seeds):
        return JSONResponse(answer.whole(said, ends))
    return JSONResponse(error("the server is ending; ask again", "server_error"), 503)


async def _until_gone(request: Request, job: Job[Wanted]) -> None:
    """Stop a job as soon as the connection is closed."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    job.stopped.set()


def _seed_of(seed: int, index: int) -> int:
    """The seed of one of several answers: of the first the request's own."""
    # Of 31 bits, which every reader of JSON keeps.
    return seed if index == 0 else derived(f"answer {index}", seed) >> 32


def _kind(failed: Failed) -> str:
    return "server_error" if failed.ours else "invalid_request_error"
