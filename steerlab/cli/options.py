"""Options of a command line: those of a settings class are made from its fields."""

import argparse
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from steerlab.core.settings import Checked


class Verb(argparse.ArgumentParser):
    """The parser of one verb, which adds its options only when the verb is called.

    `fill` adds them: so `steerlab --help` imports none of what they are made from.
    """

    def __init__(self, *, fill: Callable[["Verb"], None] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._fill = fill

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """The options that the words give; the first word that is no option raises."""
        from steerlab.core.errors import SteerlabError

        if self._fill is not None:
            self._fill(self)
            self._fill = None  # once: a parser may read several command lines
        options, rest = super().parse_known_args(args, namespace)
        if rest:
            raise SteerlabError(self._unknown(rest[0]))
        return options, rest

    def _unknown(self, word: str) -> str:
        from steerlab.core.settings import did_you_mean

        if not word.startswith("-"):
            return f"{word!r} is one word too many; {self.prog} --help lists what there is"
        name = word.partition("=")[0]
        suggestion = did_you_mean(name, self._option_string_actions)
        if suggestion:
            suggestion += " "
        return (
            f"there is no option {name!r}; {suggestion}{self.prog} --help lists those that there "
            "are"
        )


def add_options(parser: argparse.ArgumentParser, settings: "type[Checked]") -> None:
    """An option for each field: a flag that has a --no- for a yes or no, else one word.

    The words are read and checked by the settings themselves, as those of a file are. An option
    that is not given is absent from what `given` finds, so that the default is the class's own.
    """
    from steerlab.core.settings import default_of

    group = parser.add_argument_group("settings")
    hints = get_type_hints(settings)
    for name, field in settings.model_fields.items():
        # What a factory makes is described in words.
        default = shown(default_of(settings, name)) if field.default_factory is None else ""
        text = f"{field.description} (default: {default})" if default else str(field.description)
        # argparse reads % as a format.
        options: dict[str, Any] = {
            "dest": name,
            "default": argparse.SUPPRESS,
            "help": text.replace("%", "%%"),
        }
        # What is a truth or a word is a flag here; the word is for files and Python.
        if hints[name] is bool or bool in get_args(hints[name]):
            options["action"] = argparse.BooleanOptionalAction
        else:
            options["metavar"] = _metavar(name, hints[name])
        group.add_argument(f"--{name.replace('_', '-')}", **options)


def add_opened(parser: argparse.ArgumentParser, *, run: str) -> None:
    """What a session is opened from: a model, a run or a file of directions; `run` says what a run
    is good for."""
    parser.add_argument(
        "--model", help="polyglot, a Hub id, a folder or a .gguf file (default: the run's)"
    )
    parser.add_argument("--run", type=Path, metavar="DIR", help=run)
    parser.add_argument(
        "--directions", type=Path, metavar="FILE", help="a .safetensors file in place of fitting"
    )
    parser.add_argument(
        "--corpus", metavar="DIR", help="a folder of aligned <iso>.txt files (default: the run's)"
    )
    parser.add_argument("--dtype", help="the precision, such as bfloat16 or auto")
    parser.add_argument("--device", help="cpu, or cuda with a GPU")
    parser.add_argument("--revision", help="a branch, tag or commit of the model on the Hub")


def add_address(parser: argparse.ArgumentParser) -> None:
    """Where a server listens."""
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="the address to listen on, and the only name to answer to (default: 127.0.0.1, this "
        "machine alone); whoever reaches another one can use the model",
    )
    parser.add_argument("--port", type=int, default=0, help="(default: a free one)")


def loading(options: argparse.Namespace) -> dict[str, str]:
    """The words of `add_opened` that say how the model is loaded, those that are given."""
    keys = {name: getattr(options, name) for name in ("dtype", "device", "revision")}
    return {key: value for key, value in keys.items() if value}


def given(options: argparse.Namespace, settings: "type[Checked]") -> dict[str, Any]:
    """The settings that the words of a command line give."""
    return {name: getattr(options, name) for name in settings.model_fields if name in options}


def shown(value: Any) -> str:
    """A default as one would write it; empty where the description says what happens without."""
    if value is None or value is False:
        return ""
    if value is True:
        return "yes"
    items = value if isinstance(value, tuple) else (value,)
    return ",".join(f"{item:g}" if isinstance(item, float) else str(item) for item in items)


def _metavar(name: str, hint: Any) -> str:
    """What stands for a value in the help: its kind, or the words that are allowed."""
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    kind = next(kind for kind in kinds if kind is not types.NoneType)
    if get_origin(kind) is Literal:
        return f"{{{','.join(get_args(kind))}}}"
    if get_origin(kind) in (tuple, dict):
        return "A,B,..."
    return {int: "N", float: "X"}.get(kind, name.rpartition("_")[2].upper())


def add_out(parser: argparse.ArgumentParser, what: str) -> None:
    """The option for the file that a verb writes, and the one that lets it replace another's."""
    parser.add_argument("-o", "--out", type=Path, required=True, help=what)
    parser.add_argument(
        "--force",
        action="store_true",
        help="replace a file that steerlab did not write; a device or a pipe never is",
    )


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


def has_display() -> bool:
    """Whether there is a screen to open a browser on: not so on most servers."""
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
