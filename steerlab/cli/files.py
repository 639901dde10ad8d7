"""`steerlab fit`, `steer` and `show`: one step each, from file to file."""

import argparse
from pathlib import Path
from typing import Any

from steerlab.cli.options import add_out


def add_verbs(verbs: Any) -> None:
    fit = verbs.add_parser("fit", help="estimate directions from a corpus into a file")
    fit.add_argument(
        "estimator",
        help="such as diffmean, lda, pca, probe, eigengap, sparse or 'lda against source'; a wrong "
        "one lists all",
    )
    fit.add_argument("model", help="polyglot, a Hub id or a folder")
    fit.add_argument(
        "corpus",
        nargs="?",
        help="a folder of aligned <iso>.txt (default: the sentences in the package)",
    )
    add_out(fit, "a .safetensors file")
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
    add_out(show, "an .html file")
    show.set_defaults(verb=_show)


def _fit(options: argparse.Namespace) -> None:
    from steerlab.core.corpus import corpus
    from steerlab.core.files import need_target
    from steerlab.models.loading import load
    from steerlab.sweeps.fits import fit

    inputs = (options.model, options.corpus)
    need_target(options.out, ".safetensors", inputs=inputs, force=options.force)
    model = load(options.model)
    fits = fit(
        model,
        corpus(options.corpus),
        [options.estimator],
        layers=range(model.n_layers),
        source=options.source,
    )
    print(fits[options.estimator].save(options.out, force=options.force))


def _steer(options: argparse.Namespace) -> None:
    from steerlab.core.directions import Directions
    from steerlab.edits import add
    from steerlab.engine.decoding import generate
    from steerlab.models.loading import load

    step = (
        Directions.load(options.directions)
        .between(options.source, options.target)
        .at(options.layer)
    )
    edit = add(step, strength=options.strength)
    for text in generate(load(options.model), [f"{text}\n" for text in options.text], edit=edit):
        print(text.strip())


def _show(options: argparse.Namespace) -> None:
    import steerlab.figures as figures
    from steerlab.core.directions import Directions
    from steerlab.core.files import explained, need_target, write_text
    from steerlab.core.targets import marked_page

    need_target(options.out, ".html", inputs=[options.directions], force=options.force)
    directions = Directions.load(options.directions).at(options.layer)
    if options.figure == "dendrogram":
        figure = figures.dendrogram(directions)
    else:
        figure = figures.cosines(directions.vectors[:, 0], directions.langs, layer=options.layer)
    with explained(options.out):
        write_text(options.out, marked_page(figure.to_html()), force=options.force)
    print(options.out)
