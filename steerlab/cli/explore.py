"""`steerlab explore`: the page with sliders."""

import argparse
from typing import Any

from steerlab.cli.options import add_address, add_opened, has_display, loading


def add_verbs(verbs: Any) -> None:
    explore = verbs.add_parser(
        "explore", help="a local page: steer with sliders, token by token", fill=_options
    )
    explore.set_defaults(verb=_explore)


def _options(explore: argparse.ArgumentParser) -> None:
    add_opened(explore, run="the folder of a run or a sweep, to show its scores")
    add_address(explore)
    explore.add_argument("--no-open", action="store_true", help="do not open it in a browser")


def _explore(options: argparse.Namespace) -> int:
    from steerlab.studies.explore.explorer import prepared
    from steerlab.studies.explore.server import page_server

    session, page = prepared(
        options.model,
        options.directions,
        run=options.run,
        corpus=options.corpus,
        options=loading(options),
    )
    server = page_server(session, page, host=options.host, port=options.port)
    print(f"{server.url}\nCtrl-C ends it.", flush=True)
    if not options.no_open and has_display():
        import webbrowser

        webbrowser.open(server.url)
    server.run()
    return 0
