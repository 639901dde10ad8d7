"""`steerlab sweep`: a grid from a YAML file, resumed where it stopped, in one process, in
several or on Ray."""

import argparse
from pathlib import Path
from typing import Any

from steerlab.cli.options import add_options, add_ray, given, workers


def add_verbs(verbs: Any) -> None:
    sweep = verbs.add_parser(
        "sweep", help="run a grid from a .yaml file, or go on with it", fill=_options
    )
    sweep.set_defaults(verb=_sweep)


def _options(sweep: argparse.ArgumentParser) -> None:
    from steerlab.sweeps.grid import Grid

    sweep.add_argument(
        "grid",
        type=Path,
        nargs="?",
        metavar="FILE",
        help="a .yaml file of settings; those given as options win over it",
    )
    sweep.add_argument(
        "--out", type=Path, help="the folder of results (default: runs/<name of the file>)"
    )
    sweep.add_argument(
        "--dry-run",
        action="store_true",
        help="say how many cells, batches and tokens, and how long",
    )
    sweep.add_argument("--status", action="store_true", help="say what is done, and do nothing")
    sweep.add_argument("--retry", action="store_true", help="run cells again that failed")
    add_ray(sweep)
    add_options(sweep, Grid)


def _sweep(options: argparse.Namespace) -> int:
    from steerlab.core.errors import note
    from steerlab.core.files import write_table
    from steerlab.sweeps.grid import Grid
    from steerlab.sweeps.progress import progress_of
    from steerlab.sweeps.sweep import forecast, sweep, table_of

    if options.status:
        _print(progress_of(_folder(options)))
        return 0
    keys = given(options, Grid)
    grid = Grid.of(keys) if options.grid is None else Grid.read(options.grid, keys)
    if options.dry_run:
        _print(forecast(grid))
        return 0
    out = _folder(options)
    rows = sweep(grid=grid, out=out, retry=options.retry, progress=True, **workers(options))
    table = table_of(out, grid)
    write_table(table, rows)
    if table.name != "rows.parquet":
        note(f"{out} holds the table of another grid, which stays; this one's is {table.name}")
    # The best of many settings is a choice, which is made on dev and not reported on test.
    if set(rows["split"]) == {"dev"}:
        _print_best(rows, grid.race if isinstance(grid.race, str) else "joint")
    print(table)
    return 1 if rows.attrs.get("failed") else 0


def _folder(options: argparse.Namespace) -> Path:
    """The folder of results: the one given, or one named like the file."""
    from steerlab.core.errors import SteerlabError

    if options.out is None and options.grid is None:
        raise SteerlabError(
            "there is no file to name the folder of results after; give a .yaml file or --out"
        )
    return options.out or Path("runs") / options.grid.stem


def _print(values: dict[str, Any]) -> None:
    """Names and values, a line each: times in words, lists below their name and number."""
    from steerlab.sweeps.ledger import span

    for name, value in values.items():
        if isinstance(value, dict):
            value = [f"{key}: {entry}" for key, entry in value.items()]
        if isinstance(value, list):
            print(f"{name:22} {len(value)}", *(f"  {line}" for line in value), sep="\n")
        elif name == "seconds":
            print(f"{name:22} {span(value)}")
        else:
            print(f"{name:22} {value}")


def _print_best(rows: Any, value: str) -> None:
    """Print each method's best setting by a score, with its scores, as a table."""
    from rich.console import Console
    from rich.table import Table

    from steerlab.analysis.choices import at, choose
    from steerlab.analysis.results import result
    from steerlab.core.columns import score_records, summary_key

    shown = tuple(dict.fromkeys(("joint", "in_language", "relevant", value)))
    table = Table(
        "method",
        "layer",
        "strength",
        *(score_records()[name].label for name in shown),
        "dose",
        "n",
        box=None,
        pad_edge=False,
    )
    for column in table.columns:
        column.no_wrap = True  # a broken interval cannot be read
    for method, setting in choose(rows, value).items():
        summary = result(at(rows, method, setting))
        # Each score is its value with the two ends of its interval.
        scores = ["{:.2f} [{:.2f}, {:.2f}]".format(*summary[summary_key(name)]) for name in shown]
        table.add_row(
            method,
            str(summary["layer"]),
            f"{summary['strength']:g}",
            *scores,
            f"{summary['dose']:.2f}",
            str(summary["n"]),
        )
    Console(width=120).print(
        f"best setting of each method on {rows['split'].iloc[0]}, with 95 % intervals", table
    )
