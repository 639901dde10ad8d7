"""`steerlab fit`, `steer` and `show`: one step each, from file to file."""

import argparse
from pathlib import Path
from typing import Any

from steerlab.cli.options import add_out
from steerlab.core.errors import SteerlabError


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
    fit.add_argument(
        "--layers",
        type=_layers,
        metavar="A,B,...",
        help="where directions are wanted (default: all); a trained method learns at each",
    )
    fit.add_argument(
        "--targets",
        metavar="A,B,...",
        help="languages that bipo, lm, yapo, reft_r1 and grains lead to (default: all)",
    )
    fit.add_argument(
        "--training", metavar="A,B,...", help="knobs of these, such as steps=30,pairs=50"
    )
    fit.set_defaults(verb=_fit)
    steer = verbs.add_parser("steer", help="continue a text along a direction", fill=_steer_options)
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
    from steerlab.sweeps.one_fit import fit
    from steerlab.sweeps.settings import options_in

    inputs = (options.model, options.corpus)
    need_target(options.out, ".safetensors", inputs=inputs, force=options.force)
    try:
        knobs = options_in(options.training)
    except ValueError as error:
        raise SteerlabError(f"--training: {error}") from error
    directions = fit(
        options.estimator,
        options.model,
        corpus(options.corpus).split("estimate"),
        layers=options.layers,
        source=options.source,
        targets=options.targets,
        training=knobs,
    )
    print(directions.save(options.out, force=options.force))


def _steer_options(steer: argparse.ArgumentParser) -> None:
    steer.add_argument("model", help="polyglot, a Hub id or a folder")
    steer.add_argument(
        "directions",
        help="a .safetensors file, or an estimator such as diffmean, which is then fitted first",
    )
    steer.add_argument("text", nargs="+")
    steer.add_argument("--from", dest="source", default="en")
    steer.add_argument("--to", dest="target", required=True)
    steer.add_argument(
        "--layer", required=True, metavar="N,...", help="one, or several with commas between them"
    )
    steer.add_argument(
        "--strength", type=float, default=1.0, help="in the operator's unit; natural gaps for add"
    )
    steer.add_argument("--operator", default="add", help="such as add or rotate (default: add)")
    steer.add_argument(
        "--prompt", default="line", help="the prompt form, such as line or echo:5 (default: line)"
    )
    steer.add_argument("--new-tokens", type=int, default=32, metavar="N", help="(default: 32)")
    steer.add_argument("--temperature", type=float, default=0.0, help="(default: 0, greedy)")
    steer.add_argument(
        "--top-p", type=float, default=1.0, help="sample from this share (default: 1, all)"
    )
    steer.add_argument("--seed", type=int, default=0, help="of what is sampled (default: 0)")
    steer.add_argument(
        "--corpus", help="a folder of aligned <iso>.txt, for fits and for examples in prompts"
    )
    steer.add_argument("--dtype", help="the precision, such as bfloat16 or auto")
    steer.add_argument("--device", help="cpu, or cuda with a GPU")
    steer.add_argument("--revision", help="a branch, tag or commit of the model on the Hub")


def _steer(options: argparse.Namespace) -> None:
    from steerlab.core.directions import Directions
    from steerlab.edits import OPERATORS, steer
    from steerlab.engine.decoding import generate

    layers = _layers(options.layer, "--layer")
    if options.operator not in OPERATORS:
        raise SteerlabError(
            f"there is no operator {options.operator!r}; there are {', '.join(OPERATORS)}"
        )
    if _is_file(options.directions):
        directions = Directions.load(options.directions)
        model = _loaded(options)
    else:
        model, directions = _fit_first(options, layers)
    if not OPERATORS[options.operator].whole:  # which acts on all layers, whatever is asked
        directions = directions.at(*layers)
    edit = steer(
        options.operator,
        directions,
        options.strength,
        source=options.source,
        target=options.target,
    )
    outputs = generate(
        model,
        _prompts(options, model),
        edit=edit,
        max_new_tokens=options.new_tokens,
        temperature=options.temperature,
        top_p=options.top_p,
        seed=options.seed,
    )
    for text in outputs:
        print(text.strip())


def _layers(words: str, option: str = "--layers") -> list[int]:
    """The layers of an option such as 3,5; raises for what is none."""
    layers = words.replace(",", " ").split()
    if not layers or not all(word.isascii() and word.isdigit() for word in layers):
        raise SteerlabError(f"{option} is {words!r}; give a number, or several as in 3,5")
    return [int(word) for word in layers]


def _is_file(directions: str) -> bool:
    """Whether a word means a file of directions, not an estimator."""
    return directions.endswith(".safetensors") or Path(directions).exists()


def _loaded(options: argparse.Namespace) -> Any:
    from steerlab.models.loading import load

    return load(
        options.model, dtype=options.dtype, device=options.device, revision=options.revision
    )


def _fit_first(options: argparse.Namespace, layers: list[int]) -> tuple[Any, Any]:
    """The model, and an estimator's directions: at these layers, or at all for an operator that
    acts at all."""
    from steerlab.core.corpus import corpus
    from steerlab.edits import OPERATORS
    from steerlab.sweeps.fits import fit
    from steerlab.sweeps.methods import known
    from steerlab.sweeps.trainings import Trainer

    known(options.directions)  # raises before any work
    model = _loaded(options)
    fits = fit(
        model,
        corpus(options.corpus),
        [options.directions],
        layers=range(model.n_layers) if OPERATORS[options.operator].whole else layers,
        source=options.source,
        trainer=Trainer([options.target], options.prompt, options.seed),
    )
    return model, fits[options.directions]


def _prompts(options: argparse.Namespace, model: Any) -> list[str]:
    """What the model reads for each text."""
    from steerlab.core.corpus import corpus
    from steerlab.engine.prompts import prompt
    from steerlab.engine.shots import read_shots, shots

    pair = {"source": options.source, "target": options.target}
    examples: tuple[tuple[str, str], ...] = ()
    if read_shots(options.prompt):
        examples = shots(corpus(options.corpus), options.prompt, **pair)
    return [
        prompt(model.tokenizer, options.prompt, text, shots=examples, **pair)
        for text in options.text
    ]


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
