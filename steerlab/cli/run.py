"""`steerlab run`: the main job, and the page of what came of it."""

import argparse
import sys
from pathlib import Path
from typing import Any

from steerlab.cli.options import add_options, given, has_display


def add_verbs(verbs: Any) -> None:
    run = verbs.add_parser(
        "run", help="the main job: directions, controls, figures and a page", fill=_options
    )
    run.set_defaults(verb=_run)


def _options(run: argparse.ArgumentParser) -> None:
    from steerlab.studies.main.settings import Settings

    add_options(run, Settings)
    run.add_argument("--out", type=Path, help="the run folder (default: runs/<model>-<corpus>)")
    run.add_argument("--no-open", action="store_true", help="do not open the page in a browser")


def _run(options: argparse.Namespace) -> int:
    from steerlab.studies.main.settings import Settings

    # Before the imports that take seconds, so that a wrong word raises at once.
    settings = Settings.of(given(options, Settings))
    from steerlab.studies.main.run import run

    names = [Path(settings.model).name, Path(settings.corpus or "parallel").name]
    names += [word for word in ("quick", "full", "race") if getattr(settings, word)]
    folder = options.out or Path("runs") / "-".join(names)
    result = run(settings, out=folder, command=["steerlab", *sys.argv[1:]])
    page = result.report.resolve()
    print(page)
    if not options.no_open and has_display():
        import webbrowser

        webbrowser.open(page.as_uri())
    return 0
