"""`steerlab explore`: the page with sliders."""

import argparse
from pathlib import Path
from typing import Any

from steerlab.cli.options import has_display


def add_verbs(verbs: Any) -> None:
    explore = verbs.add_parser(
        "explore", help="a local page: steer with sliders, token by token", fill=_options
    )
    explore.set_defaults(verb=_explore)


def _options(explore: argparse.ArgumentParser) -> None:
    explore.add_argument(
        "--model", help="polyglot, a Hub id, a folder or a .gguf file (default: the run's)"
    )
    explore.add_argument(
        "--run", type=Path, metavar="DIR", help="the folder of a run or a sweep, to show its scores"
    )
    explore.add_argument(
        "--directions", type=Path, metavar="FILE", help="a .safetensors file in place of fitting"
    )
    explore.add_argument(
        "--corpus", metavar="DIR", help="a folder of aligned <iso>.txt files (default: the run's)"
    )
    explore.add_argument("--dtype", help="the precision, such as bfloat16 or auto")
    explore.add_argument("--device", help="cpu, or cuda with a GPU")
    explore.add_argument("--revision", help="a branch, tag or commit of the model on the Hub")
    explore.add_argument(
        "--host",
        default="127.0.0.1",
        help="the address to listen on, and the only name to answer to (default: 127.0.0.1, this "
        "machine alone); whoever reaches another one can use the model",
    )
    explore.add_argument("--port", type=int, default=0, help="(default: a free one)")
    explore.add_argument("--no-open", action="store_true", help="do not open it in a browser")


def _explore(options: argparse.Namespace) -> int:
    from steerlab.studies.explore.explorer import prepared
    from steerlab.studies.explore.server import page_server

    keys = {name: getattr(options, name) for name in ("dtype", "device", "revision")}
    session, page = prepared(
        options.model,
        options.directions,
        run=options.run,
        corpus=options.corpus,
        options={key: value for key, value in keys.items() if value},
    )
    server = page_server(session, page, host=options.host, port=options.port)
    print(f"{server.url}\nCtrl-C ends it.", flush=True)
    if not options.no_open and has_display():
        import webbrowser

        webbrowser.open(server.url)
    server.run()
    return 0
