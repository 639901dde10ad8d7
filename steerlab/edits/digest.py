"""What a function does, as a hash: its source, and every value from outside that its source uses.

The hash is the same in another process, and after a change of comments, of the docstring, of
annotations or of the line that the function stands at. It follows functions of the user's own code
into their sources; functions of installed packages count by their names.
"""

import ast
import contextlib
import copy
import dataclasses
import dis
import functools
import hashlib
import inspect
import json
import re
import symtable
import sys
import sysconfig
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steerlab.core.errors import SteerlabError

# What a value is read as: JSON, of which the hash is made.
Described = Any

# Values whose `repr` says all that they are.
_PLAIN = (type(None), bool, int, float, complex, str, bytes, range, PurePath)
_PLAIN_OF_TORCH = (torch.dtype, torch.device, torch.Size)

STEERLAB = Path(__file__).resolve().parents[1]  # the package's own folder
_FORMULAS = ("core", "sae", "edits", "analysis", "estimate")  # what sees no model

Spot = tuple[int, int]  # a line and a column, as `ast` counts them


class Unreadable(SteerlabError):
    """A function whose source, or a value that it uses, cannot be read; says which."""


def function_digest(function: Callable[..., Any]) -> str:
    """SHA-256 of a function's source, its defaults, and the closure and global values it uses."""
    return hashlib.sha256(json.dumps(_describe(function, ())).encode()).hexdigest()


def tensor_digest(tensor: Tensor) -> str:
    """SHA-256 of a tensor's type, shape and bytes, wherever it lies."""
    flat = tensor.detach().cpu().contiguous().flatten()
    digest = hashlib.sha256(f"{tensor.dtype} {list(tensor.shape)} ".encode())
    digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _describe(value: Any, above: tuple[FunctionType, ...]) -> Described:
    """A value as JSON; `above` are the functions through which it was reached."""
    if isinstance(value, (*_PLAIN, *_PLAIN_OF_TORCH)):
        return [type(value).__name__, repr(value)]
    if isinstance(value, Tensor):
        return ["tensor", tensor_digest(value)]
    if isinstance(value, (np.ndarray, np.generic)):
        array = np.ascontiguousarray(value)
        if array.dtype.hasobject:
            raise Unreadable("it uses an array of Python objects")
        return ["array", str(array.dtype), list(array.shape), _hash(array.tobytes())]
    if isinstance(value, FunctionType):
        return _describe_function(value, above)
    if isinstance(value, MethodType):
        return ["method", _describe(value.__func__, above), _describe(value.__self__, above)]
    if isinstance(value, functools.partial):
        parts = (value.func, value.args, value.keywords)
        return ["partial", *(_describe(part, above) for part in parts)]
    if isinstance(value, ModuleType):
        return ["module", value.__name__]
    if isinstance(value, type):
        return ["class", *_describe_class(value)]
    if isinstance(value, re.Pattern):  # whose `repr` cuts long ones short
        return ["pattern", value.pattern, value.flags]
    return _describe_collection(value, above)


def _describe_collection(value: Any, above: tuple[FunctionType, ...]) -> Described:
    kind = type(value).__name__
    if isinstance(value, (list, tuple)):
        return [kind, [_describe(item, above) for item in value]]
    if isinstance(value, (set, frozenset)):
        # A set has no order that two processes share.
        return [kind, sorted(json.dumps(_describe(item, above)) for item in value)]
    if isinstance(value, Mapping):
        items = [[_describe(key, above), _describe(item, above)] for key, item in value.items()]
        return [kind, items]
    if isinstance(value, torch.nn.Module):
        return ["torch module", *_describe_module(value, above)]
    if dataclasses.is_dataclass(value):
        fields = {
            each.name: _describe(getattr(value, each.name), above)
            for each in dataclasses.fields(value)
        }
        return ["dataclass", _describe_class(type(value)), fields]
    if callable(value) and _is_installed(type(value)):
        return _describe_made_by_library(value, above)
    if type(value).__module__.startswith("steerlab."):  # a loaded model, moments
        said = value.metadata if hasattr(value, "fingerprint") else vars(value)
        return [kind, _describe(dict(said), above)]
    raise Unreadable(f"it uses an object of type {kind}")


def _describe_module(module: torch.nn.Module, above: tuple[FunctionType, ...]) -> Described:
    """The classes of a module and of those in it, their settings, and all weights and buffers."""
    classes = [[name, _describe_class(type(each))] for name, each in module.named_modules()]
    settings = {}
    for name, each in module.named_modules():
        for key, value in vars(each).items():
            if not key.startswith("_"):  # those are torch's own: tables of weights and of hooks
                settings[f"{name}.{key}"] = _describe(value, above)
    tensors = (*module.named_parameters(), *module.named_buffers())
    return [classes, settings, {name: tensor_digest(tensor) for name, tensor in tensors}]


def _describe_made_by_library(value: Any, above: tuple[FunctionType, ...]) -> Described:
    """Something to call that is written in C, or is an object: torch.relu, a method of a tensor, a
    cached function."""
    name = getattr(value, "__qualname__", None)
    if name is None:
        raise Unreadable(f"it uses an object of type {type(value).__name__}")
    owner = getattr(value, "__self__", None)  # of a method the object, of a function its module
    bound = None if owner is None or isinstance(owner, ModuleType) else _describe(owner, above)
    wrapped = _describe(getattr(value, "__wrapped__", None), above)
    return ["builtin", str(getattr(value, "__module__", None)), name, bound, wrapped]


def _describe_class(kind: type) -> list[str]:
    """A class of the user's own code counts with its source, any other by its name."""
    name = f"{kind.__module__}.{kind.__qualname__}"
    if _is_installed(kind) or kind.__module__.startswith("steerlab."):
        return [name]
    try:
        return [name, ast.unparse(ast.parse(textwrap.dedent(inspect.getsource(kind))))]
    except (OSError, TypeError, SyntaxError) as error:
        raise Unreadable(f"it uses the class {name}, whose source is not in a file") from error


def _describe_function(function: FunctionType, above: tuple[FunctionType, ...]) -> Described:
    if function in above:  # it calls itself, or one that calls it
        return ["recursion", len(above) - above.index(function)]
    wrapped = getattr(function, "__wrapped__", None)
    if wrapped is not None and function.__globals__["__name__"].startswith("jaxtyping."):
        # It checks types, which changes no result; its closure names the function several times,
        # so that reading all of it would double the work at every call that the function makes.
        return _describe(wrapped, above)
    inside = (*above, function)
    if _is_installed(function):
        return _describe_installed(function, inside)
    if _runs_models(function):
        return ["steerlab", function.__qualname__, _package_digest()]
    try:
        node = _source_of(function.__code__)
    except Unreadable:
        if wrapped is None:
            raise
        return _describe(wrapped, inside)  # the wrapper was written at run time
    text = ast.unparse(node)
    values = {**_globals_of(function, text), **_closure_of(function)}
    values |= _values_in_modules(node, values)
    return [
        "function",
        text,
        [_describe(value, inside) for value in function.__defaults__ or ()],
        {name: _describe(value, inside) for name, value in (function.__kwdefaults__ or {}).items()},
        {name: _describe(value, inside) for name, value in sorted(values.items())},
        _describe_readable(vars(function), inside),  # what was set on it, as in f.scale = 2
    ]


def _describe_installed(function: FunctionType, inside: tuple[FunctionType, ...]) -> Described:
    """A library's function by its name, and one that a library made of another, such as
    `torch.vmap(f, 1)`, with that one and with its settings as far as they can be read."""
    # `functools.wraps` gives a wrapper the name of what it wraps; its code keeps its own.
    name = f"{function.__globals__['__name__']}.{function.__code__.co_qualname}"
    wrapped = getattr(function, "__wrapped__", None)
    settings = _describe_readable(_closure_of(function), inside)
    return ["installed", name, _describe(wrapped, inside), settings]


def _describe_readable(values: Mapping[str, Any], above: tuple[FunctionType, ...]) -> Described:
    described = {}
    for key, value in values.items():
        with contextlib.suppress(Unreadable):
            described[key] = _describe(value, above)
    return described


# ------------------------------------------------------------------------------- the values it uses


def _closure_of(function: FunctionType) -> dict[str, Any]:
    cells = function.__closure__ or ()
    try:
        values = [cell.cell_contents for cell in cells]
    except ValueError as error:
        raise Unreadable("it uses a name that has no value yet") from error
    return dict(zip(function.__code__.co_freevars, values, strict=True))


def _globals_of(function: FunctionType, text: str) -> dict[str, Any]:
    """The global names that a function's source reads, also inside of functions in it.

    Python's own names, such as `max`, are left to the source's text.
    """
    try:
        table = symtable.symtable(text, "function", "exec")
    except SyntaxError as error:
        raise Unreadable("it changes names of the function around it") from error
    values = function.__globals__
    return {name: values[name] for name in set(_read_names(table)) if name in values}


def _read_names(table: symtable.SymbolTable) -> Iterator[str]:
    # Standing alone, a function's closure names read as global too; the caller's closure has them.
    if table.get_type() != "module":
        for symbol in table.get_symbols():
            if symbol.is_global() and symbol.is_referenced():
                yield symbol.get_name()
    for inner in table.get_children():
        yield from _read_names(inner)


def _values_in_modules(node: ast.AST, values: Mapping[str, Any]) -> dict[str, Any]:
    """What the source reads of modules, as in `settings.SCALE`; what lies in an installed one
    counts by its name, which is in the text."""
    read = {}
    for attribute in ast.walk(node):
        if not isinstance(attribute, ast.Attribute):
            continue
        holder = _resolve(attribute.value, values)
        if not isinstance(holder, ModuleType) or _is_installed(holder):
            continue
        value = getattr(holder, attribute.attr, None)
        if not isinstance(value, ModuleType):
            read[ast.unparse(attribute)] = value
    return read


def _resolve(node: ast.expr, values: Mapping[str, Any]) -> Any:
    """The module that a name, or a chain of names with dots, stands for; else None."""
    if isinstance(node, ast.Name):
        return values.get(node.id)
    if isinstance(node, ast.Attribute):
        holder = _resolve(node.value, values)
        return getattr(holder, node.attr, None) if isinstance(holder, ModuleType) else None
    return None


# --------------------------------------------------------------------------------------- the source


def _source_of(code: CodeType) -> ast.AST:
    """The function's own node in the source of its file, without docstring, annotations, and
    defaults, whose values are read instead.

    `inspect.getsource` gives whole lines, in which two lambdas are alike; this finds the one whose
    expressions stand where the code's instructions come from.
    """
    try:
        lines, _ = inspect.findsource(code)
    except (OSError, IndexError) as error:
        raise Unreadable("its source is not in a file") from error
    spots = list(_spots_of(code))
    nodes = [node for node in _functions_in("".join(lines), code.co_name) if _holds(node, spots)]
    if not spots or not nodes:
        raise Unreadable("its source is not where it was when it was loaded")
    # Functions in which it stands hold it too; it is the one that begins last.
    node = copy.deepcopy(max(nodes, key=lambda node: (node.lineno, node.col_offset)))
    return _without_words(node)


@functools.lru_cache(maxsize=16)
def _parsed(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except SyntaxError as error:
        raise Unreadable("its file is no longer Python") from error


def _functions_in(text: str, name: str) -> Iterator[Any]:
    """The lambdas, or the functions of that name."""
    for node in ast.walk(_parsed(text)):
        if name == "<lambda>":
            if isinstance(node, ast.Lambda):
                yield node
        elif isinstance(node, ast.FunctionDef) and node.name == name:
            yield node


def _spots_of(code: CodeType) -> Iterator[tuple[Spot, Spot]]:
    """From where to where in the file the expressions of the code's instructions stand."""
    for instruction in dis.get_instructions(code):
        spot = instruction.positions
        if spot is None or spot.col_offset is None or spot.end_col_offset is None:
            continue
        first = (spot.lineno or 0, spot.col_offset)
        last = (spot.end_lineno or 0, spot.end_col_offset)
        # What stands for no expression, such as a lambda's return, has no width, and stands at the
        # beginning of the line.
        if first != last:
            yield first, last


def _holds(node: Any, spots: Iterable[tuple[Spot, Spot]]) -> bool:
    """Whether all of these expressions stand in the body of a function."""
    body = [node.body] if isinstance(node, ast.Lambda) else node.body
    start = (body[0].lineno, body[0].col_offset)
    end = (body[-1].end_lineno, body[-1].end_col_offset)
    return all(start <= first and last <= end for first, last in spots)


def _without_words(node: Any) -> ast.AST:
    """The function's node without what says nothing of what it does, changed in place."""
    arguments = node.args
    arguments.defaults = []
    arguments.kw_defaults = [None] * len(arguments.kwonlyargs)
    parameters = [
        *arguments.posonlyargs,
        *arguments.args,
        *arguments.kwonlyargs,
        arguments.vararg,
        arguments.kwarg,
    ]
    for parameter in parameters:
        if parameter is not None:
            parameter.annotation = None
    if isinstance(node, ast.FunctionDef):
        node.returns = None
        if ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return node


# -------------------------------------------------------------------------------------------- whose


@functools.cache
def _installed_folders() -> tuple[Path, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return tuple({Path(sysconfig.get_path(name)).resolve() for name in names})


def _is_installed(thing: Any) -> bool:
    """Whether a function, class or module is of Python itself or of an installed package.

    steerlab never is, wherever it lies, so that an operator's digest follows its formula.
    """
    file = _file_of(thing)
    if file is None:
        return not _is_typed_in(thing)
    path = Path(file)
    if STEERLAB in path.parents:
        return False
    # Debian's Python keeps packages in a folder of that name, beside those that it tells of.
    return "dist-packages" in path.parts or any(
        folder in path.parents or folder in path.resolve().parents
        for folder in _installed_folders()
    )


def _runs_models(function: FunctionType) -> bool:
    """Whether a function is steerlab's and no formula: such a one leads through most of the
    package, and to tables there that fill as it works."""
    path = Path(function.__code__.co_filename)
    return STEERLAB in path.parents and path.relative_to(STEERLAB).parts[0] not in _FORMULAS


@functools.cache
def _package_digest() -> str:
    """A hash of all of steerlab's source."""
    digest = hashlib.sha256()
    for file in sorted(STEERLAB.rglob("*.py")):
        digest.update(f"{file.relative_to(STEERLAB)} ".encode() + file.read_bytes())
    return digest.hexdigest()


def _file_of(thing: Any) -> str | None:
    if isinstance(thing, FunctionType):
        return thing.__code__.co_filename
    module = thing if isinstance(thing, ModuleType) else sys.modules.get(thing.__module__)
    return getattr(module, "__file__", None)


def _is_typed_in(thing: Any) -> bool:
    """Whether a class or module without a file is of a session or a notebook, not built into
    Python."""
    name = thing.__name__ if isinstance(thing, ModuleType) else thing.__module__
    return name == "__main__"


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
