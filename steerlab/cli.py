"""Words on a command line: each verb is one library call on files."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; a user's error is told in one line (exit 2), a stop by Ctrl-C says how to go on (exit 130)."""
    options = _parser().parse_args(arguments)
    from steerlab.terms import SteerlabError

    try:
        return int(options.verb(options) or 0)
    except SteerlabError as error:
        print(f"steerlab: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nsteerlab: stopped; what was finished is kept, the same command goes on from there", file=sys.stderr)
        return 130
    except OSError as error:
        print(f"steerlab: {error}; what was finished is kept, the same command goes on from there", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="steerlab", description="Find, measure and steer the language of a language model."
    )
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")
    run = verbs.add_parser("run", help="the main job: directions, controls, figures and a page")
    _run_options(run)
    run.set_defaults(verb=_run)
    fit = verbs.add_parser("fit", help="estimate directions from a corpus into a file")
    fit.add_argument("estimator", help="diffmean, lda, pca, probe or eigengap")
    fit.add_argument("model", help="polyglot, a Hub id or a folder")
    fit.add_argument("corpus", nargs="?", help="a folder of aligned <iso>.txt (default: the sentences in the package)")
    fit.add_argument("-o", "--out", type=Path, required=True, help="a .safetensors file")
    fit.add_argument("--source", default="en")
    fit.set_defaults(verb=_fit)
    steer = verbs.add_parser("steer", help="continue a text along a direction from a file")
    steer.add_argument("model")
    steer.add_argument("directions", type=Path)
    steer.add_argument("text", nargs="+")
    steer.add_argument("--from", dest="source", default="en")
    steer.add_argument("--to", dest="target", required=True)
    steer.add_argument("--layer", type=int, required=True)
    steer.add_argument("--strength", type=float, default=1.0, help="in natural gaps")
    steer.set_defaults(verb=_steer)
    show = verbs.add_parser("show", help="draw directions from a file")
    show.add_argument("directions", type=Path)
    show.add_argument("figure", choices=("dendrogram", "cosines"))
    show.add_argument("--layer", type=int, required=True)
    show.add_argument("-o", "--out", type=Path, required=True, help="an .html file")
    show.set_defaults(verb=_show)
    return parser


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.replace(",", " ").split() if word)


def _run_options(run: argparse.ArgumentParser) -> None:
    run.add_argument("--model", default="polyglot", help="a Hub id or a folder (default: the model in the package)")
    run.add_argument("--corpus", help="a folder of aligned <iso>.txt (default: the sentences in the package)")
    run.add_argument("--langs", type=_words, help="languages to read, such as en,de,es (default: all of the corpus)")
    run.add_argument("--source", default="en")
    run.add_argument("--targets", type=_words, help="languages to steer to (default: all but the source)")
    run.add_argument("--layers", type=lambda text: tuple(int(word) for word in _words(text)), help="such as 1,3,5,7")
    run.add_argument("--prompt", default="line", choices=("line", "instructed", "chat"), help="the prompt form")
    run.add_argument("--lid", help="a fastText language identifier (default: lid.176, in the package's wheel)")
    run.add_argument("--device", help="cpu or cuda (default: cuda if there is one)")
    run.add_argument("--dtype", help="float32, bfloat16, float16 or auto")
    run.add_argument("--limit", type=int, default=None, help="test lines at most (default 48)")
    run.add_argument("--out", type=Path, help="the run folder (default: runs/<model>-<corpus>)")
    run.add_argument("--seed", type=int, default=0)
    run.add_argument("--quick", action="store_true", help="DiffMean only, a small grid: a minute")
    run.add_argument("--full", action="store_true", help="every layer, strength, target and dev line")
    run.add_argument("--race", action="store_true", help="choose by successive halving: a third of the grid's cost")
    run.add_argument("--no-open", action="store_true", help="do not open the page in a browser")


def _run(options: argparse.Namespace) -> int:
    from steerlab.report import write_report
    from steerlab.study import TEST_LINES, Settings, run

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
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _fit(options: argparse.Namespace) -> None:
    from steerlab.corpora import corpus
    from steerlab.model import load
    from steerlab.sweeps import fit

    model = load(options.model)
    fits = fit(model, corpus(options.corpus), [options.estimator], layers=range(model.n_layers), source=options.source)
    print(fits[options.estimator].save(options.out))


def _steer(options: argparse.Namespace) -> None:
    from steerlab.directions import Directions
    from steerlab.edits import add
    from steerlab.generation import generate
    from steerlab.model import load

    step = Directions.load(options.directions).between(options.source, options.target).at(options.layer)
    edit = add(step, strength=options.strength)
    for text in generate(load(options.model), [f"{text}\n" for text in options.text], edit=edit):
        print(text.strip())


def _show(options: argparse.Namespace) -> None:
    import steerlab.figures as figures
    from steerlab.directions import Directions

    directions = Directions.load(options.directions).at(options.layer)
    if options.figure == "dendrogram":
        figure = figures.dendrogram(directions)
    else:
        figure = figures.cosines(directions.vectors[:, 0], directions.langs, layer=options.layer)
    figure.write_html(options.out)
    print(options.out)


if __name__ == "__main__":
    sys.exit(main())
