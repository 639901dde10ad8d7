"""The explorer as a page of a local server: it serves the page, and streams what a setting says.

Starlette and uvicorn, since all that is needed is three routes, a stream of lines and a check
before them; the page is written by hand, so that nothing is fetched and each control can be tested.
"""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from importlib.resources import files
from typing import Any

from markupsafe import Markup

from steerlab.core.errors import SteerlabError
from steerlab.edits import OPERATORS
from steerlab.studies.explore.recipes import as_command, as_python
from steerlab.studies.explore.session import Event, Session, Told
from steerlab.studies.explore.setting import Setting
from steerlab.studies.explore.worker import Worker
from steerlab.studies.html import environment
from steerlab.studies.local.line import Failed, Job
from steerlab.studies.local.server import Server, listen, post, read_json

try:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
    from starlette.routing import Route
except ImportError as error:
    raise SteerlabError(
        "the explorer needs the extra `explore`; install it, with pip install 'steerlab[explore]'"
    ) from error

BODY = 16_384  # bytes of a request at most: four for each character of a sentence, and the rest


def application(worker: Worker, page: dict[str, Any], guard: Callable[..., Any]) -> Starlette:
    """The three routes of the explorer.

    Args:
        worker: runs settings.
        page: what the page's controls offer, as `controls` gives it.
        guard: wraps the application and refuses requests that are not for it.
    """
    session = worker.session
    folder = files(__package__) / "templates"
    assets = {
        "explore.css": "text/css; charset=utf-8",
        "explore.js": "text/javascript; charset=utf-8",
    }
    shared = files("steerlab.studies.html") / "templates"
    styles = [(shared / name).read_text("utf-8") for name in ("page.css", "dark.css")]
    texts = {name: (folder / name).read_text("utf-8") for name in assets}
    texts["explore.css"] = "\n".join([*styles, texts["explore.css"]])
    html = rendered(page)

    async def show(request: Request) -> Response:
        return Response(html, media_type="text/html; charset=utf-8")

    async def asset(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in assets:
            return PlainTextResponse("there is no such page here; begin at /", 404)
        return Response(texts[name], media_type=assets[name])

    async def run(request: Request) -> Response:
        try:
            setting = Setting.of(await read_json(request, most=BODY))
            session.need(setting)
            loop, events = asyncio.get_running_loop(), asyncio.Queue[Any]()
            job = Job(setting, lambda event: post(loop, events, event))
            worker.submit(job)
        except SteerlabError as error:
            return JSONResponse({"error": str(error)}, 400)
        return StreamingResponse(
            _lines(session, job, events), media_type="application/x-ndjson; charset=utf-8"
        )

    app = Starlette(
        routes=[
            Route("/", show),
            Route("/run", run, methods=["POST"]),
            Route("/{name}", asset),
        ],
    )
    app.add_middleware(guard)
    return app


def rendered(page: dict[str, Any]) -> str:
    """The page with its controls' values."""
    return (
        environment(__package__)
        .get_template("explore.html.jinja")
        .render(page=page, data=Markup(_embedded(page)))
    )


def _embedded(value: Any) -> str:
    """JSON that cannot end the script that it stands in."""
    text = json.dumps(_plain(value), ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


async def _lines(
    session: Session, job: Job[Setting], events: "asyncio.Queue[Event | Failed | None]"
) -> AsyncIterator[str]:
    """The events of a job, a line of JSON each; whoever leaves stops it."""
    try:
        yield _line({"kind": "begun"})
        while (event := await events.get()) is not None:
            yield _line({"kind": type(event).__name__.lower(), **asdict(event)})
            if isinstance(event, (Told, Failed)):
                continue
        if not job.stopped.is_set():
            yield _line(_recipes(session, job.setting))
    finally:
        job.stopped.set()


def _recipes(session: Session, setting: Setting) -> dict[str, str]:
    try:
        python, command = as_python(session, setting), as_command(session, setting)
    except SteerlabError:  # said already, as what failed
        return {"kind": "end"}
    return {"kind": "end", "python": python, "command": command}


def _line(event: dict[str, Any]) -> str:
    return json.dumps(_plain(event)) + "\n"


def _plain(value: Any) -> Any:
    """A value as JSON has it: null for NaN and infinity."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value


def page_server(
    session: Session,
    page: dict[str, Any],
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    framed: bool = False,
) -> Server:
    """A server of the page that listens already; `run` or `start` lets it answer.

    Args:
        session: what it serves.
        page: what the controls offer.
        host: the address that it listens on, by which it is also called.
        port: 0 for a free one.
        framed: whether pages of this machine, such as a notebook, may show it in a frame.
    """
    at = listen(host, port)
    worker = Worker(session)
    return Server(at, application(worker, page, at.guard(framed=framed)), worker)


def controls(
    session: Session,
    *,
    title: str,
    setting: dict[str, Any],
    scores: list[dict[str, Any]] | None = None,
    note: str = "",
) -> dict[str, Any]:
    """What the page's controls offer.

    Args:
        session: what it explores.
        title: what the page is called.
        setting: where it begins.
        scores: the maps of `run_folder.read_run`.
        note: a sentence beside the map, or in its place.
    """
    from steerlab.core.languages import language

    return {
        "title": title,
        "model": session.model.name,
        "layers": list(session.layers),
        "langs": [{"code": lang, "name": language(lang).name} for lang in session.langs],
        "estimators": {name: list(session.operators(name)) for name in session.names},
        "operators": {
            name: {
                "knob": record.knob,
                "unit": record.unit,
                "grid": list(record.grid),
                "whole": record.whole,
                "removes": record.removes,
            }
            for name, record in OPERATORS.items()
        },
        "prompts": session.forms,
        "setting": setting,
        "scores": scores or [],
        "note": note,
    }
