"""A finished run folder as one self-contained page: the answer, tables, figures, samples, what
was run."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import UndefinedError
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from steerlab.core.errors import SteerlabError, first_line_of
from steerlab.core.files import explained, read_json, read_table, write_text
from steerlab.studies.html import environment
from steerlab.studies.html.figures import read_figures
from steerlab.studies.html.outputs import packed
from steerlab.studies.main.page.account import describe_run
from steerlab.studies.main.page.equal import chances, equal_costs
from steerlab.studies.main.page.identifiers import identifiers
from steerlab.studies.main.page.inference import by_language, doses, tests, untestable
from steerlab.studies.main.page.samples import COUNT, SEED, draw_samples
from steerlab.studies.main.page.sentences import answer, byline, families
from steerlab.studies.main.page.tables import differences, headline, outcomes
from steerlab.studies.main.page.values import controls, methods
from steerlab.sweeps.settings import NEW_TOKENS

__all__ = ["FORMAT", "write_report"]

FORMAT = 1
_WRONG = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
_KEYS = ("model", "source", "targets", "results")
_COLUMNS = (
    "method layer strength split source target sentence prompt output language in_language joint "
    "tokens"
).split()


def write_report(folder: Path) -> Path:
    """Read a run folder and write `report.html` there; the page appears whole or not at all.

    Reads summary.json, manifest.json, rows.parquet and figures/*.json (plotly figures;
    `layout.meta` may hold "title" and "caption"). Raises `SteerlabError` where one of the first
    three is missing, broken or of another format.
    """
    summary, manifest, rows = _read(folder)
    try:
        page = _rendered(folder, summary, manifest, rows)
    # What stands in the place of what was expected: what that raises has no class in common.
    except (*_WRONG, UndefinedError) as error:
        raise SteerlabError(
            f"{folder / 'summary.json'} lacks something, or holds something else in its place "
            f"({type(error).__name__}: {first_line_of(error)}); run again"
        ) from error
    file = folder / "report.html"
    with explained(file):
        write_text(file, page)
    return file


def _rendered(
    folder: Path, summary: dict[str, Any], manifest: dict[str, Any], rows: pd.DataFrame
) -> str:
    """The page of a run."""
    return (
        environment(__name__)
        .get_template("report.html.jinja")
        .render(
            title=f"Steering the language of {summary['model']}",
            byline=byline(summary),
            answer=answer(summary),
            headline=headline(summary),
            outcomes=outcomes(summary),
            differences=differences(summary),
            identifiers=identifiers(summary),
            tests=tests(summary),
            untestable=untestable(summary),
            doses=doses(summary),
            costs=equal_costs(summary),
            chances=chances(summary),
            by_language=by_language(summary),
            families=families(summary),
            figures=read_figures(folder / "figures"),
            outputs=packed(rows, first=[*methods(summary), *controls(summary)]),
            samples=draw_samples(summary, rows),
            new_tokens=manifest.get("new_tokens", NEW_TOKENS),
            sample_count=COUNT,
            sample_seed=SEED,
            account=describe_run(summary, manifest, rows),
            # Safe unescaped: a script of the installed plotly, with nothing of the run in it.
            plotly=Markup(get_plotlyjs()),
            version=_version(),
        )
    )


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Any], pd.DataFrame]:
    summary, manifest = _json(folder / "summary.json"), _json(folder / "manifest.json")
    if summary.get("format") != FORMAT:
        raise SteerlabError(
            f"{folder / 'summary.json'} has format {summary.get('format')!r}; this version reads "
            f"{FORMAT}: run again"
        )
    if missing := [key for key in _KEYS if key not in summary]:
        raise SteerlabError(
            f"{folder / 'summary.json'} lacks {', '.join(missing)}; run `steerlab run` to its end"
        )
    file = folder / "rows.parquet"
    try:
        rows = read_table(file)
    except FileNotFoundError as error:
        raise _unfinished(file) from error
    if missing := [column for column in _COLUMNS if column not in rows.columns]:
        raise SteerlabError(
            f"{file} lacks the columns {', '.join(missing)}; something else wrote it: run again"
        )
    return summary, manifest, rows


def _json(file: Path) -> dict[str, Any]:
    if not file.exists():
        raise _unfinished(file)
    try:
        return read_json(file)
    except SteerlabError as error:
        raise SteerlabError(f"{error}: run again") from error


def _unfinished(file: Path) -> SteerlabError:
    return SteerlabError(
        f"there is no {file}; a report needs a finished run: run `steerlab run` to its end"
    )


def _version() -> str:
    try:
        return version("steerlab")
    except PackageNotFoundError:
        return "(not installed)"
