"""`steerlab clas`: CLaS-Bench, with its own settings as defaults."""

import argparse
import sys
from pathlib import Path
from typing import Any

from steerlab.cli.words import add_prompt, add_ray, numbers, words, workers


def add_verbs(verbs: Any) -> None:
    clas = verbs.add_parser(
        "clas", help="CLaS-Bench: open questions, every pair of languages, a judge of relevance"
    )
    clas.add_argument(
        "--model",
        default="polyglot",
        help="a Hub id or a folder (default: the model in the package)",
    )
    clas.add_argument(
        "--questions",
        help="DGurgurov/CLaS-Bench or a folder of its form (default: the stand-in in the package)",
    )
    clas.add_argument(
        "--sources", type=words, help="languages to ask in (default: all of the questions)"
    )
    clas.add_argument(
        "--targets", type=words, help="languages to steer to (default: all of the questions)"
    )
    clas.add_argument("--pairs", type=pairs, help="in their place, such as en-de,de-en")
    clas.add_argument(
        "--corpus",
        help="aligned <iso>.txt for the directions (default: the sentences in the package)",
    )
    clas.add_argument("--texts", help="in its place, a folder of plain <iso>.txt")
    clas.add_argument("--estimators", type=words, default=("diffmean",))
    clas.add_argument("--operators", type=words, default=("add",))
    clas.add_argument(
        "--layers", type=numbers, help="such as 4,8,12 (default: seven, evenly spread)"
    )
    clas.add_argument(
        "--strengths", type=floats, help="in natural gaps (default: the operator's own)"
    )
    clas.add_argument(
        "--alphas",
        type=floats,
        help="in their place, the paper's absolute steps, such as 1,2.5,5,10",
    )
    add_prompt(clas, default="chat")
    clas.add_argument(
        "--baselines", type=words, default=("english", "target"), help="languages of instructions"
    )
    clas.add_argument(
        "--judge", help="the URL of an OpenAI-compatible endpoint, or another judge's word"
    )
    clas.add_argument("--judge-model", help="the judge's model, such as Qwen/Qwen3-8B")
    clas.add_argument(
        "--lid",
        help="a fastText language identifier; the paper's is lid218e.bin (default: lid.176)",
    )
    clas.add_argument("--new-tokens", type=int, default=1024)
    clas.add_argument("--limit", type=int, help="questions to report on at most")
    clas.add_argument("--dev-limit", type=int, help="questions to choose on at most")
    clas.add_argument("--device", help="cpu or cuda (default: cuda if there is one)")
    clas.add_argument("--dtype", help="float32, bfloat16, float16 or auto")
    clas.add_argument("--seed", type=int, default=0)
    clas.add_argument(
        "--batch", type=int, help="rows that run together (default: what memory and speed advise)"
    )
    clas.add_argument("--out", type=Path, help="the run folder (default: runs/clas-<model>)")
    add_ray(clas)
    clas.set_defaults(verb=_clas)


def _clas(options: argparse.Namespace) -> int:
    from dataclasses import fields

    from steerlab.studies.clas import Settings, run

    told = {field.name: getattr(options, field.name) for field in fields(Settings)}
    folder = options.out or Path("runs") / f"clas-{Path(options.model).name}"
    made = run(
        Settings(**told), out=folder, command=["steerlab", *sys.argv[1:]], **workers(options)
    )
    print(made / "table.md")
    return 0


def floats(text: str) -> tuple[float, ...]:
    """Numbers with commas or spaces between them."""
    try:
        return tuple(float(word) for word in words(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} are no numbers; write them as in 0.5,1,1.5"
        ) from error


def pairs(text: str) -> tuple[tuple[str, str], ...]:
    """Pairs such as en-de, with commas or spaces between them."""
    found = []
    for word in words(text):
        source, dash, target = word.partition("-")
        if not (source and dash and target):
            raise argparse.ArgumentTypeError(
                f"{word!r} is no pair; write the source and the target as in en-de"
            )
        found.append((source, target))
    return tuple(found)
