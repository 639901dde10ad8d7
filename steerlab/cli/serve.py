"""`steerlab serve`: an endpoint for other programs, with an edit in each request."""

import argparse
from pathlib import Path
from typing import Any


def add_verbs(verbs: Any) -> None:
    serve = verbs.add_parser(
        "serve",
        help="an endpoint of OpenAI's protocol on this machine: an edit in each request",
        fill=_options,
    )
    serve.set_defaults(verb=_serve)


def _options(serve: argparse.ArgumentParser) -> None:
    serve.add_argument(
        "--model", help="polyglot, a Hub id, a folder or a .gguf file (default: the run's)"
    )
    serve.add_argument(
        "--run", type=Path, metavar="DIR", help="the folder of a run, whose directions are taken"
    )
    serve.add_argument(
        "--directions", type=Path, metavar="FILE", help="a .safetensors file in place of fitting"
    )
    serve.add_argument(
        "--edit",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="an edit that `Edit.save` wrote; requests ask for it by its name; may be given again",
    )
    serve.add_argument(
        "--corpus", metavar="DIR", help="a folder of aligned <iso>.txt files (default: the run's)"
    )
    serve.add_argument("--dtype", help="the precision, such as bfloat16 or auto")
    serve.add_argument("--device", help="cpu, or cuda with a GPU")
    serve.add_argument("--revision", help="a branch, tag or commit of the model on the Hub")
    serve.add_argument(
        "--rows", type=int, default=32, help="how many answers are said at once (default: 32)"
    )
    serve.add_argument(
        "--host",
        default="127.0.0.1",
        help="the address to listen on, and the only name to answer to (default: 127.0.0.1, this "
        "machine alone); whoever reaches another one can use the model",
    )
    serve.add_argument("--port", type=int, default=0, help="(default: a free one)")


def _serve(options: argparse.Namespace) -> int:
    from steerlab.core.errors import SteerlabError
    from steerlab.edits import Edit
    from steerlab.studies.explore.explorer import opened
    from steerlab.studies.serve import endpoint

    if options.rows < 1:
        raise SteerlabError(f"--rows is {options.rows}; give 1 or more")
    edits = {}
    for word in options.edit:
        name, equals, file = word.partition("=")
        if not equals or not file:
            raise SteerlabError(f"--edit is {word!r}; give a name and a file, as NAME=FILE")
        edits[name] = Edit.load(file)
    keys = {name: getattr(options, name) for name in ("dtype", "device", "revision")}
    session, _ = opened(
        options.model,
        options.directions,
        run=options.run,
        corpus=options.corpus,
        options={key: value for key, value in keys.items() if value},
    )
    server = endpoint(session, edits=edits, host=options.host, port=options.port, rows=options.rows)
    print(f"{server.url}v1\nmodel: {session.model.name}\nCtrl-C ends it.", flush=True)
    server.run()
    return 0
