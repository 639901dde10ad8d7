"""Numbers of the code itself, as a Markdown table: sizes of modules and functions, names at the
door, comments."""

import ast
import statistics
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE, TESTS = ROOT / "steerlab", ROOT / "tests"
COLUMNS = 100
_DIRECTIVES = ("# noqa", "# type: ignore")
_EMPTY = {
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}


def measures() -> dict[str, str]:
    """Each measure by its name."""
    files = sorted(PACKAGE.rglob("*.py"))
    sizes = {file: len(_lines(file)) for file in files}
    largest = max(files, key=sizes.__getitem__)
    functions = [length for file in files for length in _functions(file)]
    code, comments = (sum(counts) for counts in zip(*map(_tokens, files), strict=True))
    return {
        "modules": str(len(files)),
        "lines": f"{sum(sizes.values()):,}",
        "median module, lines": f"{statistics.median(sizes.values()):g}",
        "largest module, lines": f"{sizes[largest]} (`{largest.relative_to(PACKAGE)}`)",
        "modules above 400 lines": str(sum(size > 400 for size in sizes.values())),
        "functions": f"{len(functions):,}",
        "median function, lines": f"{statistics.median(functions):g}",
        "95th percentile of functions, lines": f"{statistics.quantiles(functions, n=20, method='inclusive')[-1]:.0f}",
        "longest function, lines": str(max(functions)),
        "names at the door": str(_door()),
        "top-level entries of `steerlab/`": str(len(list(_entries()))),
        "code lines": f"{code:,}",
        "comments per thousand code lines": f"{1000 * comments / code:.0f}",
        f"lines over {COLUMNS} columns, package": f"{_long(files):,}",
        f"lines over {COLUMNS} columns, tests": f"{_long(TESTS.rglob('*.py')):,}",
    }


def _lines(file: Path) -> list[str]:
    return file.read_text("utf-8").splitlines()


def _functions(file: Path) -> Iterator[int]:
    """The length of each function, methods and inner ones too, from `def` to its last line
    without decorators."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield (node.end_lineno or node.lineno) - node.lineno + 1


def _tokens(file: Path) -> tuple[int, int]:
    """(lines that hold code, comments); docstrings are neither, nor is what speaks to a linter."""
    code, comments, starts = set[int](), 0, True
    with tokenize.open(file) as opened:
        for token in tokenize.generate_tokens(opened.readline):
            if token.type == tokenize.COMMENT:
                comments += not token.string.startswith(_DIRECTIVES)
            elif token.type not in _EMPTY and not (starts and token.type == tokenize.STRING):
                code.update(range(token.start[0], token.end[0] + 1))
            if token.type not in (tokenize.COMMENT, tokenize.NL):
                starts = token.type in _EMPTY
    return len(code), comments


def _door() -> int:
    import steerlab

    return len(steerlab.__all__)


def _entries() -> Iterator[Path]:
    return (path for path in PACKAGE.iterdir() if not path.name.startswith(("__pycache__", ".")))


def _long(files: Iterable[Path]) -> int:
    return sum(len(line) > COLUMNS for file in files for line in _lines(file))


if __name__ == "__main__":
    print("| measure | value |", "|---|---:|", sep="\n")
    for name, value in measures().items():
        print(f"| {name} | {value} |")
