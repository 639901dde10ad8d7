"""`steerlab run`: the main job, and the page of what came of it."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from steerlab.cli.words import add_prompt, numbers, words


def add_verbs(verbs: Any) -> None:
    run = verbs.add_parser("run", help="the main job: directions, controls, figures and a page")
    run.add_argument(
        "--model",
        default="polyglot",
        help="a Hub id or a folder (default: the model in the package)",
    )
    run.add_argument(
        "--corpus", help="a folder of aligned <iso>.txt (default: the sentences in the package)"
    )
    run.add_argument(
        "--langs",
        type=words,
        help="languages to read, such as en,de,es (default: all of the corpus)",
    )
    run.add_argument("--source", default="en")
    run.add_argument(
        "--targets", type=words, help="languages to steer to (default: all but the source)"
    )
    run.add_argument("--layers", type=numbers, help="such as 1,3,5,7")
    add_prompt(run, default="line")
    run.add_argument(
        "--lid", help="a fastText language identifier (default: lid.176, in the package's wheel)"
    )
    run.add_argument("--device", help="cpu or cuda (default: cuda if there is one)")
    run.add_argument("--dtype", help="float32, bfloat16, float16 or auto")
    run.add_argument("--limit", type=int, default=None, help="test lines at most (default 48)")
    run.add_argument("--out", type=Path, help="the run folder (default: runs/<model>-<corpus>)")
    run.add_argument("--seed", type=int, default=0)
    run.add_argument("--quick", action="store_true", help="DiffMean only, a small grid: a minute")
    run.add_argument(
        "--full", action="store_true", help="every layer, strength, target and dev line"
    )
    run.add_argument(
        "--race",
        action="store_true",
        help="choose by successive halving: a third of the grid's cost",
    )
    run.add_argument("--no-open", action="store_true", help="do not open the page in a browser")
    run.set_defaults(verb=_run)


def _run(options: argparse.Namespace) -> int:
    from steerlab.studies.main.page import write_report
    from steerlab.studies.main.study import TEST_LINES, Settings, run

    limit = options.limit if options.limit is not None else 16 if options.quick else TEST_LINES
    settings = Settings(
        model=options.model,
        corpus=options.corpus,
        langs=options.langs,
        source=options.source,
        targets=options.targets,
        layers=options.layers,
        prompt=options.prompt,
        lid=options.lid,
        dtype=options.dtype,
        device=options.device,
        limit=limit,
        seed=options.seed,
        quick=options.quick,
        full=options.full,
        race=options.race,
    )
    names = [Path(options.model).name, Path(options.corpus or "parallel").name]
    names += [word for word in ("quick", "full", "race") if getattr(options, word)]
    folder = options.out or Path("runs") / "-".join(names)
    page = write_report(run(settings, out=folder, command=["steerlab", *sys.argv[1:]])).resolve()
    print(page)
    if not options.no_open and _has_display():
        import webbrowser

        webbrowser.open(page.as_uri())
    return 0


def _has_display() -> bool:
    return sys.platform in ("darwin", "win32") or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
