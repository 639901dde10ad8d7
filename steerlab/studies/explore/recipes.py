"""A setting of the explorer as a few lines of Python and as a command: what they print is what the
page says."""

import shlex
from collections.abc import Iterator
from typing import Any

from steerlab.edits import OPERATORS
from steerlab.studies.explore.session import Session
from steerlab.studies.explore.setting import Setting


def as_python(session: Session, setting: Setting) -> str:
    """Lines that print the steered output.

    Where a model or directions were given as objects, the lines use them by the names `model` and
    `directions`.
    """
    return "\n".join(_lines(session, setting)) + "\n"


def _lines(session: Session, setting: Setting) -> Iterator[str]:
    yield "import steerlab as sl\n"
    if session.named is None:
        yield "# `model` is the one that was given to sl.explore."
    else:
        yield f"model = sl.load({_call(session.named, **session.options)})"
    at = ", ".join(map(str, setting.layers))
    acts = "" if OPERATORS[setting.operator].whole else f".at({at})"
    yield from _directions(session, setting)
    yield (
        f"edit = sl.edits.steer({setting.operator!r}, directions{acts}, {setting.strength!r}, "
        f"source={setting.source!r}, target={setting.target!r})"
    )
    yield f"text = {session.prompt(setting)!r}"
    sampled = {}
    if setting.temperature:
        sampled = {"temperature": setting.temperature, "seed": setting.seed}
    options = _call(max_new_tokens=setting.new_tokens, **sampled)
    yield f"print(sl.generate(model, text, edit=edit, {options}))"


def _directions(session: Session, setting: Setting) -> Iterator[str]:
    """The lines that make or read the directions."""
    name = setting.estimator
    if name in session.files:
        yield f"directions = sl.Directions.load({str(session.files[name])!r})"
    elif name in session.own.directions:
        several = "" if len(session.own.directions) == 1 else f"; here {name!r} of them"
        yield f"# `directions` are those that were given to sl.explore{several}."
        if several:
            yield f"directions = directions[{name!r}]"
    else:
        read = (
            "" if session.folder is None else f"sl.corpus({session.folder!r}).split('estimate'), "
        )
        yield f"directions = sl.fit({name!r}, model, {read}source={setting.source!r})"


def _call(*given: Any, **keys: Any) -> str:
    """Arguments as Python writes them."""
    return ", ".join([*map(repr, given), *(f"{key}={value!r}" for key, value in keys.items())])


def as_command(session: Session, setting: Setting) -> str:
    """A line for a shell that prints the steered output; where the directions are in memory alone,
    a remark that says how to save them stands above it."""
    name = setting.estimator
    directions, remarks = name, []
    if session.named is None:
        remarks.append("# MODEL: the Hub id, folder or file of the model given to sl.explore")
    if name in session.files:
        directions = str(session.files[name])
    elif name in session.own.directions:
        directions = "directions.safetensors"
        remarks.append(f"# first, in Python: directions.save({directions!r})")
    if "\0" in setting.text:
        return "# No command can hold the NUL character that the sentence has; use the Python."
    what = [session.named or "MODEL", directions, setting.text]
    words = ["--from", setting.source, "--to", setting.target]
    words += ["--operator", setting.operator, "--layer", ",".join(map(str, setting.layers))]
    # With = a number below zero is no option.
    words += [f"--strength={setting.strength!r}", "--prompt", setting.prompt]
    words += ["--new-tokens", str(setting.new_tokens)]
    if setting.temperature:
        words += ["--temperature", f"{setting.temperature!r}", "--seed", str(setting.seed)]
    if session.folder is not None:
        words += ["--corpus", session.folder]
    for key, value in session.options.items():
        words += [f"--{key}", value]
    # A sentence that begins with a dash is no option either, behind two of them.
    dashed = any(word.startswith("-") for word in what)
    words = [*words, "--", *what] if dashed else [*what, *words]
    return "\n".join([*remarks, shlex.join(["steerlab", "steer", *words])])
