"""`steerlab serve`: an endpoint for other programs, with an edit in each request."""

import argparse
from typing import Any

from steerlab.cli.options import add_address, add_opened, loading


def add_verbs(verbs: Any) -> None:
    serve = verbs.add_parser(
        "serve",
        help="an endpoint of OpenAI's protocol on this machine: an edit in each request",
        fill=_options,
    )
    serve.set_defaults(verb=_serve)


def _options(serve: argparse.ArgumentParser) -> None:
    add_opened(serve, run="the folder of a run, whose directions are taken")
    serve.add_argument(
        "--edit",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="an edit that `Edit.save` wrote; requests ask for it by its name; may be given again",
    )
    serve.add_argument(
        "--rows", type=int, default=32, help="how many answers are said at once (default: 32)"
    )
    add_address(serve)


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
    session, _ = opened(
        options.model,
        options.directions,
        run=options.run,
        corpus=options.corpus,
        options=loading(options),
    )
    server = endpoint(session, edits=edits, host=options.host, port=options.port, rows=options.rows)
    print(f"{server.url}v1\nmodel: {session.model.name}\nCtrl-C ends it.", flush=True)
    server.run()
    return 0
