"""Every picture of the documentation, drawn anew from what was recorded: `make figures`.

`python experiments/figures/redraw.py [--out FOLDER]` needs no run and no model. `DRAWN` says what each
picture is drawn from and how; a screenshot stands in `SHOT` with the command that makes it. What a
page shows and neither has, what they have and no page shows, and a record that is not there are named
before anything is drawn, and the exit status is 1. The experiments that make the pages keep the
records.
"""

import argparse
import re
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from steerlab import figures
from steerlab.core.errors import SteerlabError
from steerlab.core.files import read_json, write_text
from steerlab.figures.style import readable

sys.path.append(str(Path(__file__).resolve().parents[1] / "gemma"))

import gemma_figures

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "docs" / "images"
TABLES = Path(__file__).parent / "recorded"
GEMMA = ROOT / "experiments" / "gemma" / "recorded"
SHOWN = re.compile(r"\]\((?:docs/)?images/([\w.-]+)\)")
AYA = "Aya-Expanse-8B"
LAYER = 14  # where its families are most distinct


@dataclass(frozen=True)
class Picture:
    """What a picture is drawn from, how, and in how many mm.

    Args:
        record: the file that it is drawn from.
        make: from the file to the figure.
        width: of the picture.
        height: of the picture.
    """

    record: Path
    make: Callable[[Path], go.Figure]
    width: float
    height: float


def _table(
    name: str, make: Callable[[pd.DataFrame], go.Figure], width: float, height: float
) -> Picture:
    """A picture of a table in `recorded`, of the picture's own name."""
    file = TABLES / f"{name}.csv"
    # "none" and "null" are words here, and Namibia's and the like's codes are no missing values.
    return Picture(
        file,
        lambda path: make(pd.read_csv(path, keep_default_na=False, na_values=[""])),
        width,
        height,
    )


def _map(table: pd.DataFrame) -> go.Figure:
    """The map of a model from its places [layer language], and the shares of the two axes."""
    langs = table["language"].drop_duplicates().tolist()
    places = table[["x", "y"]].to_numpy(float).reshape(-1, len(langs), 2)
    shares = table[["share_x", "share_y"]].to_numpy(float)[:: len(langs)]
    return figures.language_map(
        places, shares, langs, layers=range(len(places)), layer=LAYER, note=AYA
    )


def _concept(name: str) -> Callable[[pd.DataFrame], go.Figure]:
    """A picture of a page of concepts: what reached a goal by strength, or the transfer between
    languages."""
    _, case, what = name.split("-")[:3]  # a model's name may follow

    def transfer(table: pd.DataFrame) -> go.Figure:
        named = table.rename(columns={"rise": "rise of reached"})
        return figures.heatmap(named, x="steered", y="fitted", value="rise of reached")

    def doses(table: pd.DataFrame) -> go.Figure:
        figure = figures.dose_curves(
            table,
            x="strength",
            by="method",
            x_label="strength (gaps of the concept)",
            value_label=f"reached, towards {what}",
            note=f"{case}; n = {table['n'].min()} outputs a point, on dev, each method at its better "
            "layer.",
        )
        # Elsewhere that control is a language's direction, here it is a concept's.
        figure.for_each_trace(
            lambda trace: trace.update(name="The other case's concept"),
            selector={"name": readable("wrong")},
        )
        return figure

    return transfer if what == "transfer" else doses


def _kinds(table: pd.DataFrame) -> go.Figure:
    """Neurons by kind and layer, with the parts of the model where its layers divide into some."""
    parts = None
    if "part" in table:
        layers = table.groupby("part", sort=False)["layer"]
        parts = {str(name): tuple(sorted(set(part))) for name, part in layers}
    return figures.kinds_by_layer(table.drop(columns="part", errors="ignore"), parts=parts)


def _of_units(of: str) -> dict[str, Picture]:
    """The pictures of a model's page of features and neurons; `of` begins their names."""
    made: dict[str, tuple[Callable[[pd.DataFrame], go.Figure], float, float]] = {
        "langfir_counts": (figures.threshold_counts, 160, 90),
        "langfir_stability": (figures.stability_curve, 120, 80),
        "lape_by_layer": (
            lambda table: figures.units_by_layer(table.set_index("language").rename(columns=int)),
            140,
            90,
        ),
        "nju_by_layer": (_kinds, 140, 90),
        "latent_spectra": (
            lambda table: figures.spectrum(table, targets=("de", "ru", "ja"), kind="latents"),
            160,
            90,
        ),
        "selectivity": (
            lambda table: figures.selectivity(table.set_index(table.columns[0])),
            160,
            130,
        ),
    }
    return {
        f"{of}{name}": _table(f"{of}{name}", make, width, height)
        for name, (make, width, height) in made.items()
    }


DRAWN: dict[str, Picture] = {
    "atlas-depth": _table("atlas-depth", figures.depth, 180, 105),
    "atlas-aya": _table("atlas-aya", _map, 140, 160),
    "spectrum": _table(
        "spectrum", lambda table: figures.spectrum(table, targets=("de", "ru", "ja")), 160, 100
    ),
    "gemma-headline": Picture(
        GEMMA / "run.json", lambda file: gemma_figures.headline(read_json(file)), 150, 78
    ),
    "gemma-depth": Picture(
        GEMMA / "depth.json", lambda file: gemma_figures.depth(read_json(file)), 180, 105
    ),
}

DRAWN |= _of_units("") | _of_units("gemma-")
DRAWN |= {
    file.stem: _table(file.stem, _concept(file.stem), 180, 105)
    for file in sorted(TABLES.glob("concepts-*.csv"))
}

# Pictures of a screen, by the command that takes them.
SHOT: dict[str, str] = {
    "report.png": "make gemma, then python experiments/screens.py --docs --run runs/gemma-3-270m-parallel",
}


def used() -> set[str]:
    """The names of the pictures that README and the pages show."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return {name for page in pages for name in SHOWN.findall(page.read_text("utf-8"))}


def problems(shown: set[str], drawn: Mapping[str, Picture], shot: Mapping[str, str]) -> list[str]:
    """What is wrong with the lists, a sentence for each picture."""
    known = {f"{name}.svg" for name in drawn} | set(shot)
    found = [f"{name} is on a page, and nothing draws it" for name in sorted(shown - known)]
    found += [f"{name} is drawn, and no page shows it" for name in sorted(known - shown)]
    found += [
        f"{name}.svg has no record: {picture.record.name} is missing"
        for name, picture in drawn.items()
        if not picture.record.is_file()
    ]
    return found


def drawn(name: str, table: pd.DataFrame) -> None:
    """Record a table, and draw its picture from it; for an experiment that has made the table."""
    table.to_csv(DRAWN[name].record, index=False, float_format="%.6g")
    draw([name], IMAGES)


def draw(names: list[str], out: Path) -> list[Path]:
    """Draw pictures, all in one run of the browser; gives the files that are other than before."""
    made = {}
    for name in names:
        picture = DRAWN[name]
        figure = picture.make(picture.record)
        made[name] = figures.paper(figure, width=picture.width, height=picture.height)
    changed = []
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        figures.draw({Path(folder) / f"{name}.svg": figure for name, figure in made.items()})
        for name in made:
            file = out / f"{name}.svg"
            text = _with_steady_ids((Path(folder) / file.name).read_text("utf-8"))
            if not file.exists() or file.read_text("utf-8") != text:
                write_text(file, text, force=True)
                changed.append(file)
    return changed


def _with_steady_ids(svg: str) -> str:
    """The picture with the same ids every time: plotly draws them by lot."""
    lot = re.search(r'id="defs-([0-9a-f]{6})"', svg)
    return svg.replace(lot[1], "plotly") if lot else svg


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=IMAGES)
    options = parser.parse_args()
    wrong = problems(used(), DRAWN, SHOT)
    if wrong:
        print("figures:", "; ".join(wrong), file=sys.stderr)
        return 1
    try:
        changed = draw(list(DRAWN), options.out)
    except SteerlabError as error:
        print(f"figures: {error}", file=sys.stderr)
        return 1
    told = ", ".join(file.name for file in changed) or "none"
    print(f"{len(DRAWN)} pictures drawn into {options.out}; other than before: {told}")
    for name, command in SHOT.items():
        print(f"{name} is a screenshot: {command}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
