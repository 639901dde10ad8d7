"""What several verbs read from their options."""

import argparse
from typing import Any


def words(text: str) -> tuple[str, ...]:
    """Words with commas or spaces between them."""
    return tuple(word for word in text.replace(",", " ").split() if word)


def numbers(text: str) -> tuple[int, ...]:
    """Whole numbers with commas or spaces between them."""
    try:
        return tuple(int(word) for word in words(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} are no whole numbers; write them as in 1,3,5"
        ) from error


def add_prompt(parser: argparse.ArgumentParser, *, default: str) -> None:
    """The prompt form, any that `prompts.read_form` reads: the settings of each verb check it."""
    told = f"the prompt form, such as line, chat, line+english or chat+de (default: {default})"
    parser.add_argument("--prompt", metavar="FORM", default=default, help=told)


def add_ray(parser: argparse.ArgumentParser) -> None:
    """The options that put the work on a Ray cluster."""
    parser.add_argument(
        "--ray", metavar="ADDRESS", help="work on a Ray cluster: auto, local or its address"
    )
    parser.add_argument(
        "--workers", type=int, help="Ray workers (default: one for each GPU, else for each --cpus)"
    )
    parser.add_argument("--cpus", type=int, default=1, help="cores, and threads, of one Ray worker")
    parser.add_argument(
        "--gpus", type=float, help="GPUs of one Ray worker (default: 1 where there are any)"
    )


def workers(options: argparse.Namespace) -> dict[str, Any]:
    """`workers=` of a call, if a cluster was asked for."""
    if not options.ray:
        return {}
    from steerlab.sweeps.ray import Ray

    return {"workers": Ray(options.ray, options.workers, options.cpus, options.gpus)}
