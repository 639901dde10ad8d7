"""Whether the tests notice a fault: small changes of the code, one at a time, and who fails.

`python experiments/mutants.py --sample 30 --seed 0` writes build/mutants.md: the share of mutants
that some test killed, and the survivors' diffs. `--hand` takes the list HAND instead. Each mutant
is made in a copy of the tree in a temporary folder; the working tree is only read. Of the tests
those files run that name the mutated module, or the package's door to it, in an import, smallest
first; `--tests` names others.
"""

import argparse
import ast
import copy
import ctypes
import difflib
import importlib
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("estimate", "edits", "analysis", "scores")
PAGE = Path("build/mutants.md")
LEAST = 0.9  # of the mutants have to be killed
OUTPUT = "output.txt"  # of pytest, in the copy of the tree
PR_SET_CHILD_SUBREAPER = 36  # of Linux' prctl
WAITING = 10  # seconds by the clock for each that the processor may work for a mutant

# (file below steerlab/, what stands there, what is put in its place): faults that once survived.
HAND = (
    ("analysis/geometry/family_neighbours.py", "accuracy.max(1)", "accuracy.mean(1)"),
    ("estimate/controls.py", 'generator("random directions", seed)', 'generator("random", 0)'),
    ("estimate/controls.py", "derangement(len(directions.langs), seed)", "derangement(len(directions.langs), 0)"),
    ("estimate/controls.py", "derangement(len(targets), seed)", "derangement(len(targets), 0)"),
    ("analysis/effects/dominance.py", "matrix.argmax(0)", "matrix.argmax(1)"),
    ("estimate/build.py", "vectors - vectors.mean(0, keepdim=True)", "vectors"),
    ("estimate/eigengap.py", "squares = values.square()", "squares = values"),
    ("analysis/geometry/layers.py", "compute_uv=False) ** 2", "compute_uv=False)"),
    ("estimate/units/controls.py", "firing.rate[:, need_of(selection, firing)]", "firing.rate.mean(0, keepdim=True).expand_as(firing.rate)[:, need_of(selection, firing)]"),
    ("edits/operators.py", 'need_finite("strength", strength) * direction.gap\n    need_basis(direction, "to push along")', 'need_finite("strength", strength) * direction.gap.mean().expand_as(direction.gap)\n    need_basis(direction, "to push along")'),
    ("analysis/geometry/matrices.py", "moved[:, 0] - (moved[:, 0] @ basis.T) @ basis", "moved[:, 0]"),
    ("estimate/lda_and_probe.py", " + apart.T @ apart / len(others)", ""),
    ("estimate/eigengap.py", "nonzero = nonzero[nonzero > zero][: largest + 1]", "nonzero = nonzero[: largest + 1]"),
    ("estimate/eigengap.py", "[: largest + 1]", "[:largest]"),
    ("estimate/sparse.py", "abs(layer - ANCHOR * last)", "abs(layer - last / 2)"),
    ("estimate/sparse.py", "moments.pooled[:, moments.layers.index(below)]", "moments.pooled[:, moments.layers.index(last)]"),
    ("analysis/geometry/family_neighbours.py", "(signs @ differences.T).max(1)", "(signs @ differences.T).mean(1)"),
    ("sweeps/cell.py", "self.fits[sentence % len(self.fits)]", "self.fits[0]"),
    ("analysis/tests.py", "(size - 1) * intraclass", "(total / count - 1) * intraclass"),
    ("estimate/units/culnig.py", "score.std(0, correction=0)", "score.std(0)"),
    ("estimate/units/langfir.py", "kept = share >= consistency", "kept = share > consistency"),
    ("estimate/units/langfir.py", "noise_share <= noise", "noise_share < noise"),
)  # fmt: skip

COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
}  # fmt: skip
OPERATIONS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}
NAMES = {"min": "max", "max": "min", "mean": "sum", "argmax": "argmin", "amax": "amin"}


@dataclass(frozen=True)
class Mutant:
    """One change of one file: the text that takes the place of the whole file."""

    file: str
    line: int
    kind: str
    before: str
    after: str

    @property
    def diff(self) -> str:
        """The changed lines."""
        lines = difflib.unified_diff(
            self.before.splitlines(), self.after.splitlines(), lineterm="", n=1
        )
        return "\n".join(list(lines)[2:])


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sample", type=int, default=30, help="how many mutants are drawn")
    parser.add_argument("--seed", type=int, default=0, help="decides which")
    parser.add_argument("--hand", action="store_true", help="take the list of this file instead")
    parser.add_argument("--tests", nargs="*", default=[], help="test files, instead of importers")
    parser.add_argument("--most", type=int, default=6, help="test files a mutant, smallest first")
    parser.add_argument("--timeout", type=int, default=120, help="seconds of processor a mutant")
    parser.add_argument("--out", type=Path, default=PAGE)
    options = parser.parse_args(words)
    mutants = by_hand() if options.hand else drawn(options.sample, options.seed)
    results = []
    sound: dict[str, bool] = {}
    preload()
    adopt_orphans()
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        copied(tree)
        for mutant in mutants:
            tests = options.tests or importers(mutant.file)[: options.most]
            result = run(tree, mutant, tests, options.timeout, sound)
            results.append((mutant, result))
            print(f"{result:9} {mutant.file}:{mutant.line} {mutant.kind}", flush=True)
            # Written after each, so that a run that is stopped leaves what it found.
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(page(results), "utf-8")
    return int(killed(results) < LEAST)


def by_hand() -> list[Mutant]:
    """The mutants of HAND; raises where the code no longer holds what one replaces."""
    mutants = []
    for file, old, new in HAND:
        before = (ROOT / "steerlab" / file).read_text("utf-8")
        # The first that is code; a docstring may hold the same words.
        if old not in before:
            raise SystemExit(f"steerlab/{file} no longer holds {old!r}: mend HAND")
        start = before.index(old)
        after = before[:start] + new + before[start + len(old) :]
        line = before[:start].count("\n") + 1
        mutants.append(Mutant(f"steerlab/{file}", line, "by hand", before, after))
    return mutants


def drawn(count: int, seed: int) -> list[Mutant]:
    """A random sample of the operator mutants of all functions in FOLDERS."""
    every = []
    for folder in FOLDERS:
        for path in sorted((ROOT / "steerlab" / folder).rglob("*.py")):
            every += list(mutations(path))
    return random.Random(seed).sample(every, min(count, len(every)))


def mutations(path: Path) -> Iterator[Mutant]:
    """Every operator mutant of a file, one node changed in each."""
    before = path.read_text("utf-8")
    name = path.relative_to(ROOT).as_posix()
    tree = ast.parse(before)
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        for node in ast.walk(ast.Module(function.body, [])):
            if not isinstance(node, ast.expr):
                continue
            for kind, changed in changes(node):
                yield Mutant(name, node.lineno, kind, before, replaced(before, node, changed))


def changes(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """(what is changed, the changed node) of each mutation of one expression."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
        other = copy.deepcopy(node)
        other.ops[0] = COMPARISONS[type(node.ops[0])]()
        yield "comparison", other
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATIONS:
        # Of text, + has no other.
        if not any(isinstance(side, ast.JoinedStr) for side in (node.left, node.right)):
            yield "operator", ast.BinOp(node.left, OPERATIONS[type(node.op)](), node.right)
        one = isinstance(node.right, ast.Constant) and node.right.value == 1
        if one and isinstance(node.op, ast.Add | ast.Sub):
            yield "dropped 1", node.left
    # `type`, since True is an int too.
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        value: Any = node.value
        yield "constant", ast.Constant(value + 1 if value < 1 else value - 1)
    if isinstance(node, ast.Attribute) and node.attr in NAMES:
        yield f"{node.attr} -> {NAMES[node.attr]}", ast.Attribute(node.value, NAMES[node.attr])
    if isinstance(node, ast.Name) and node.id in ("min", "max"):
        yield f"{node.id} -> {NAMES[node.id]}", ast.Name(NAMES[node.id])


def replaced(text: str, node: ast.expr, changed: ast.expr) -> str:
    """The text with one expression in place of another; parentheses keep its place in a sum."""
    lines = text.encode().splitlines(keepends=True)  # offsets of `ast` count bytes
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    start = starts[node.lineno - 1] + node.col_offset
    end = starts[node.end_lineno - 1] + node.end_col_offset  # type: ignore[operator]
    code = ast.unparse(ast.fix_missing_locations(changed))
    if not isinstance(changed, ast.Constant):
        code = f"({code})"
    raw = text.encode()
    return (raw[:start] + code.encode() + raw[end:]).decode()


def copied(tree: Path) -> None:
    """Copy what the tests need; the working tree is never written to."""
    leave = shutil.ignore_patterns(".*", "__pycache__", "build", "runs", "site")
    shutil.copytree(ROOT, tree, ignore=leave)


def importers(file: str) -> list[str]:
    """The test files that import a module or a folder above it, the nearest first.

    Those that name the module itself come before those that use what it defines through its
    folder's door, most often first, and these before those that know its folder alone; smaller
    before larger.
    """
    module = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    folder = module.rsplit(".", 1)[0]
    last = module.rsplit(".", 1)[1]
    direct = re.compile(rf"{re.escape(module)}\b|from {re.escape(folder)} import .*\b{last}\b")
    nearby = re.compile(rf"(from|import) {re.escape(folder)}\b|steerlab\.{folder.split('.')[1]}\b")
    used = re.compile(rf"\b({'|'.join(defined(ROOT / file)) or '(?!)'})\b")
    ranked = []
    for path in (ROOT / "tests").glob("test_*.py"):
        text = path.read_text("utf-8")
        uses = len(used.findall(text)) if "steerlab" in text else 0
        if direct.search(text):
            ranked.append((0, 0, len(text), f"tests/{path.name}"))
        elif uses:
            ranked.append((1, -uses, len(text), f"tests/{path.name}"))
        elif nearby.search(text):
            ranked.append((2, 0, len(text), f"tests/{path.name}"))
    return [name for *_, name in sorted(ranked)]


def defined(path: Path) -> list[str]:
    """The public functions and classes of a file."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    nodes = [node for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, kinds)]
    return [node.name for node in nodes if not node.name.startswith("_")]


def preload() -> None:
    """Import what takes long and is not ours, once, before the processes of the mutants fork."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # as the tests do, before anything reads it
    # Bytecode has time stamps of whole seconds, which could hide a change.
    sys.dont_write_bytecode = True
    for name in ("torch", "pandas", "scipy.stats", "sklearn.linear_model", "transformers"):
        importlib.import_module(name)
    if loaded := [name for name in sys.modules if name.split(".")[0] == "steerlab"]:
        raise SystemExit(f"{loaded[0]} is loaded already, and so would not be the mutant's")


def run(
    tree: Path, mutant: Mutant, tests: Sequence[str], timeout: int, sound: dict[str, bool]
) -> str:
    """killed, survived, timeout, or untested where no test imports the module.

    A test that fails without any fault says nothing of one: whether the file that killed a mutant
    passes without it is tried once, kept in `sound`, and a file that does not is left out.
    """
    tests = [test for test in tests if sound.get(test, True)]
    if not tests:
        return "untested"
    target = tree / mutant.file
    target.write_text(mutant.after, "utf-8")
    try:
        code = in_a_fork(tree, tests, timeout)
    finally:
        target.write_text(mutant.before, "utf-8")
    if code is None:
        return "timeout"
    # 1: a test failed; 2: a test file could not be imported; all else is no verdict.
    if code not in (0, 1, 2):
        raise SystemExit(f"pytest itself failed, with {code}, on {mutant.file}:{mutant.line}")
    if code == 0:
        return "survived"
    for test in failed(tree) or tests:
        if test not in sound:
            sound[test] = in_a_fork(tree, [test], timeout) == 0
        if not sound[test]:
            return run(tree, mutant, tests, timeout, sound)
    return "killed"


def failed(tree: Path) -> list[str]:
    """The test files that failed in the last run."""
    output = (tree / OUTPUT).read_text("utf-8", "replace")
    found = re.findall(r"^(?:FAILED|ERROR) (tests/\w+\.py)", output, re.MULTILINE)
    return list(dict.fromkeys(found))


def in_a_fork(tree: Path, tests: Sequence[str], timeout: int) -> int | None:
    """pytest's exit code in the copy, or None where time ran out.

    What counts is the time of the processor, so that other work on the machine changes no result;
    tests that only wait end after `WAITING` times as much.
    """
    child = os.fork()
    if child == 0:
        code = 70
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (timeout, timeout + 5))
            os.chdir(tree)
            # The copy wins over an installed package, here and in what the tests start.
            sys.path.insert(0, str(tree))
            os.environ["PYTHONPATH"] = str(tree)
            with open(tree / OUTPUT, "w") as output:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
            words = ["-o", "addopts=", "-x", "-q", "-p", "no:cacheprovider", *tests]
            code = int(importlib.import_module("pytest").main(words))
        finally:
            os._exit(code)
    end = time.monotonic() + WAITING * timeout
    done, status = os.waitpid(child, os.WNOHANG)
    while not done and time.monotonic() < end:
        time.sleep(0.2)
        done, status = os.waitpid(child, os.WNOHANG)
    if not done:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    end_children()
    if not done:
        return None
    over = os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL)
    return None if over else os.waitstatus_to_exitcode(status)


def adopt_orphans() -> None:
    """Have processes that outlive the test that started them, as a cluster's do, become children of
    this one, which then can end them."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_children() -> None:
    """End what a test has started and not ended."""
    left = psutil.Process().children(recursive=True)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left)


def killed(results: Sequence[tuple[Mutant, str]]) -> float:
    """The share of mutants that a test noticed; one that ran out of time is in doubt: not counted
    as killed."""
    return sum(result == "killed" for _, result in results) / max(1, len(results))


def page(results: Sequence[tuple[Mutant, str]]) -> str:
    """The results in Markdown."""
    lines = ["# Mutants", ""]
    count = sum(result == "killed" for _, result in results)
    lines += [f"{count} of {len(results)} killed ({killed(results):.0%}).", ""]
    lines += ["| file | line | change | result |", "|---|---|---|---|"]
    for mutant, result in results:
        lines.append(f"| {mutant.file} | {mutant.line} | {mutant.kind} | {result} |")
    for mutant, result in results:
        if result != "killed":
            lines += ["", f"## {mutant.file}:{mutant.line}, {result}", ""]
            lines += ["```diff", mutant.diff, "```"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
