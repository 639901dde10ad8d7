"""How languages lie in Llama-3.1-8B-Instruct, Aya-Expanse-8B and polyglot: figures, their data,
their captions.

`python experiments/atlas.py [FOLDER]` reads `directions/<model>.safetensors` (language means, made
from CLaS-Bench's release) and `typology/` from a folder. Drawings show every language; statistics
stand on CLaS-Bench's 32 (for polyglot its 16), centred over these, and those with typology on the
ones that have it.
"""

import argparse
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from scipy.cluster.hierarchy import cophenet
from scipy.spatial.distance import squareform

import steerlab as sl
from steerlab import figures
from steerlab.analysis import geometry
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.languages import families, language
from steerlab.estimate.released import language_means

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
OUT = Path("build/atlas")
PAGE = Path(__file__).resolve().parents[1] / "docs" / "atlas.md"
RECORDED = Path(__file__).resolve().parent / "figures" / "recorded"
START, END = "<!-- experiments/atlas.py writes what follows -->", "<!-- the tables end -->"
IMAGES = {"depth-8b.svg": "atlas-depth.svg", "map2d-aya-expanse-8b.svg": "atlas-aya.svg"}
SHOWN = (0, 7, 11, 16, 20, 24, 27, 29, 31)  # layers of the table
MODELS = {"llama-3.1-8b-instruct": "Llama-3.1-8B-Instruct", "aya-expanse-8b": "Aya-Expanse-8B"}
BEYOND = ("af", "bn", "tl", "ur")  # released, but not among the 32 languages of the benchmark
# The languages that each model's card names: whether a language was trained for may look like
# kinship.
NAMED = {
    "llama-3.1-8b-instruct": "en de fr it pt hi es th",
    "aya-expanse-8b": "ar zh cs nl en fr de el he hi id it ja ko fa pl pt ro ru es tr uk vi",
}
TYPOLOGY = {
    "Glottolog tree": "glottolog_tree",
    "URIEL syntax": "uriel_syntax_knn",
    "URIEL phonology": "uriel_phonology_knn",
    "geography": "geo_km",
}
WHERE = """
No language means under {folder}: the figures of the two 8B models were left out. Where the data can be had:
- means: CLaS-Bench's release (github.com/d-gurgurov/CLaS-Bench, under CLaS-Bench/identification: the files
  vector.<language>.<model>), stacked as float16 `means` [lang layer width] with `langs`, `model` and `site` in the
  header, as {folder}/directions/llama-3.1-8b-instruct.safetensors and aya-expanse-8b.safetensors;
- distances: {folder}/typology, from Glottolog (glottolog/glottolog-cldf) and URIEL (antonisa/lang2vec).
Then: python experiments/atlas.py FOLDER"""


@dataclass(frozen=True)
class Subject:
    """A model's language means [layer lang width]: all that are drawn, and the places of those
    that are counted."""

    name: str
    title: str
    directions: Directions
    counted: tuple[int, ...]

    @property
    def langs(self) -> list[str]:
        return list(self.directions.langs)

    @property
    def means(self) -> np.ndarray:
        return np.asarray(self.directions.means.transpose(0, 1).double().numpy())

    @property
    def bench(self) -> list[str]:
        return [self.langs[place] for place in self.counted]


@dataclass(frozen=True)
class Settings:
    """Where figures go, as what, and how many permutations and resamples stand behind them."""

    out: Path
    formats: tuple[str, ...]
    permutations: int
    resamples: int


class Book:
    """Writes figures and their data, and keeps the captions for one page."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.captions = settings, ["# Captions\n"]
        self.pictures: dict[Path, go.Figure] = {}

    def add(
        self,
        name: str,
        figure: go.Figure,
        data: pd.DataFrame,
        *,
        width: float = 180,
        height: float = 110,
    ) -> None:
        self.captions.append(f"**{name}.** {figure.layout.meta['caption']}\n")
        print(*figures.write(figure, self.settings.out / name, data=data, force=True), flush=True)
        printed = figures.paper(figure, width=width, height=height)
        self.pictures |= {
            self.settings.out / f"{name}.{ending}": printed for ending in self.settings.formats
        }

    def close(self) -> None:
        """The captions, then all pictures at once; without a browser there are the pages and the
        data."""
        (self.settings.out / "captions.md").write_text("\n".join(self.captions), "utf-8")
        try:
            figures.draw(self.pictures, force=True)
        except SteerlabError as error:
            print(f"atlas: {error}", file=sys.stderr)


def released(folder: Path) -> list[Subject]:
    """The 8B models whose means are there."""
    found = []
    for name, title in MODELS.items():
        if (file := folder / "directions" / f"{name}.safetensors").exists():
            means = language_means(file)
            counted = [place for place, iso in enumerate(means.langs) if iso not in BEYOND]
            found.append(Subject(name, title, means, tuple(counted)))
    return found


def polyglot() -> Subject:
    """The model in the package, its means over the sentences in the package."""
    corpus = sl.corpus()
    directions = sl.diffmean(sl.collect(sl.load(), corpus.split("estimate"), also=[]))
    return Subject("polyglot", "polyglot", directions, tuple(range(len(corpus.langs))))


def distances(
    folder: Path, langs: Sequence[str]
) -> tuple[list[str], dict[str, np.ndarray], np.ndarray] | None:
    """The languages that have typology, their distances, and how many Glottolog nodes each two
    share."""
    if not (folder / "typology" / "shared_glottolog_nodes.tsv").exists():
        return None

    def read(name: str) -> pd.DataFrame:
        return pd.read_csv(
            folder / "typology" / f"{name}.tsv", sep="\t", index_col="iso", keep_default_na=False
        )

    shared = read("shared_glottolog_nodes")
    kept = [iso for iso in langs if iso in shared.index]
    tables = {
        name: read(f"dist_{file}").loc[kept, kept].to_numpy(float)
        for name, file in TYPOLOGY.items()
    }
    return kept, tables, shared.loc[kept, kept].to_numpy(float)


def differs(words: Sequence[str]) -> np.ndarray:
    """1 where two languages differ in a word, such as their family; 0 where they share it."""
    return (np.asarray(words)[:, None] != np.asarray(words)).astype(float)


def part(matrices: np.ndarray, have: Sequence[str], want: Sequence[str]) -> np.ndarray:
    places = [list(have).index(iso) for iso in want]
    return matrices[np.ix_(range(len(matrices)), places, places)]


def by_layer(subject: Subject, settings: Settings) -> pd.DataFrame:
    """Cosines, gaps, rank and kinship of the counted languages; kinship again within Latin
    script, with labels permuted within scripts, and against that of the first layer."""
    means = subject.means[:, subject.counted]
    table = geometry.by_layer(means, subject.bench)
    count = settings.permutations
    large = geometry.family_neighbours(means, subject.bench, least=3, permutations=count)
    every = geometry.family_neighbours(means, subject.bench, permutations=count)
    latin = geometry.within_script(subject.bench)
    script = geometry.family_neighbours(
        means[:, latin], [subject.bench[place] for place in latin], least=3, permutations=count
    )
    for name, kin in (("", large), ("any_", every), ("latin_", script)):
        for column, value in (
            ("accuracy", kin.accuracy),
            ("null", kin.null),
            ("p", kin.p),
            ("counted", kin.n),
        ):
            table[f"{name}{column}"] = value
    for name, least in (("", 3), ("any_", 2)):
        options: dict[str, Any] = {
            "least": least,
            "permutations": count,
            "within": geometry.scripts(subject.bench),
        }
        kin = geometry.family_neighbours(means, subject.bench, **options)
        first = geometry.family_neighbours(means[:1], subject.bench, **options)
        more = geometry.beyond(kin, first)
        table[f"{name}scripts_p"] = kin.p
        table[f"{name}best"] = more.layer
        table[f"{name}gained"], table[f"{name}lost"] = more.gained, more.lost
        table[f"{name}first_p"] = more.p
    table.insert(0, "model", subject.title)
    return table


def best_layer(table: pd.DataFrame) -> int:
    """Where two languages of a family differ most from two of different families."""
    return int(table["layer"].to_numpy()[(table["within"] - table["between"]).to_numpy().argmax()])


def draw_cosines(book: Book, subject: Subject, layer: int) -> None:
    raw = geometry.cosine_matrices(subject.means, centre=False)
    centred = geometry.cosine_matrices(subject.means)
    order = figures.leaf_order(figures.linkage_of(subject.means[layer], subject.langs))
    first, second = np.triu_indices(len(subject.langs), 1)
    pairs = {"a": np.array(subject.langs)[first], "b": np.array(subject.langs)[second]}
    layers = range(len(raw))
    data = pd.concat(
        pd.DataFrame(
            {
                "layer": k,
                **pairs,
                "raw": raw[k][first, second],
                "centred": centred[k][first, second],
            }
        )
        for k in layers
    )
    figure = figures.cosine_layers(
        raw, centred, subject.langs, layers=layers, layer=layer, order=order, note=subject.title
    )
    book.add(f"cosines-{subject.name}", figure, data, height=90)


def draw_tree(book: Book, subject: Subject, layer: int) -> None:
    """The dendrogram, each branch with its share of resamples and of layers."""
    tree = figures.linkage_of(subject.means[layer], subject.langs)
    many = geometry.resampled(subject.means[layer], count=book.settings.resamples)
    boot = geometry.support(
        tree, [figures.linkage_of(drawn, subject.langs) for drawn in many], subject.langs
    )
    others = [
        figures.linkage_of(here, subject.langs)
        for k, here in enumerate(subject.means)
        if k != layer
    ]
    across = geometry.support(tree, others, subject.langs)
    marks = [
        f"{b:.0%}/{a:.0%}".replace("%", "") if b >= 0.5 else ""
        for b, a in zip(boot, across, strict=True)
    ]
    note = (
        f"{subject.title}. Numbers: per cent of {book.settings.resamples} resamples of the "
        "dimensions (left, where 50 "
        f"or more) and of the {len(others)} other layers (right) whose tree has the branch"
    )
    figure = figures.dendrogram(subject.directions.at(layer), marks=[*marks[:-1], ""], note=note)
    names = [" ".join(sorted(branch)) for branch in geometry.clades(tree, subject.langs)]
    data = pd.DataFrame(
        {"languages": names, "height": tree[:, 2], "resamples": boot, "layers": across}
    )
    book.add(f"tree-{subject.name}", figure, data, width=140, height=20 + 5 * len(subject.langs))


def draw_maps(book: Book, subject: Subject, layer: int) -> None:
    layers = range(len(subject.means))
    for dimensions in (2, 3):
        points, shares = geometry.layout(subject.means, dimensions=dimensions)
        figure = figures.language_map(
            points, shares, subject.langs, layers=layers, layer=layer, note=subject.title
        )
        places = pd.concat(
            pd.DataFrame(here, columns=list("xyz")[:dimensions]).assign(
                layer=k,
                language=subject.langs,
                **{f"share_{axis}": share for axis, share in zip("xyz", shares[k], strict=False)},
            )
            for k, here in enumerate(points)
        )
        book.add(f"map{dimensions}d-{subject.name}", figure, places, width=140, height=160)


def draw_tangle(book: Book, subject: Subject, layer: int, folder: Path) -> None:
    """The model's tree against Glottolog's, and how alike the two are at every layer."""
    if (found := distances(folder, subject.bench)) is None:
        return
    langs, _, shared = found
    means = subject.means[:, subject.counted]
    right = geometry.classification(shared)
    places = [subject.bench.index(iso) for iso in langs]
    trees = [figures.linkage_of(here[places], langs) for here in means]
    heights = np.stack([squareform(cophenet(tree)) for tree in trees])
    alike = geometry.mantel(
        heights,
        {"Glottolog tree": squareform(cophenet(right))},
        permutations=book.settings.permutations,
    )
    here = alike[alike["layer"] == layer].iloc[0]
    left = trees[layer]
    orders = geometry.untangle(left, right, start=figures.leaf_order(left))
    statistic = (
        f"Correlation of the cophenetic distances of the two trees r = {here['r']:.2f}, p = "
        f"{here['p_corrected']:.4f} "
        f"by permutation of languages, corrected for {len(trees)} layers; entanglement "
        f"{geometry.entanglement(*orders):.2f}"
    )
    figure = figures.tanglegram(
        left,
        right,
        langs,
        orders=orders,
        headings=(subject.title, "Glottolog"),
        statistic=statistic,
        layer=layer,
    )
    fit = [figures.cophenetic(row[places]) for row in means]
    book.add(
        f"tangle-{subject.name}",
        figure,
        alike.assign(cophenetic=fit),
        width=160,
        height=24 + 4.6 * len(langs),
    )


def explain(subject: Subject, folder: Path, permutations: int) -> pd.DataFrame:
    """Mantel tests, alone and partial, and the regression, as the rows of `figures.explained`."""
    apart = 1 - geometry.cosine_matrices(subject.means[:, subject.counted])
    kin = {
        "family": differs(families(subject.bench)),
        "script": differs([language(x).script for x in subject.bench]),
    }
    tables = {
        "Mantel r, family and script alone": geometry.mantel(apart, kin, permutations=permutations),
        "partial r, each given the other": given_each_other(
            apart, kin, subject.bench, permutations
        ),
    }
    if subject.name in NAMED:
        card = {
            "named": differs([str(iso in NAMED[subject.name].split()) for iso in subject.bench])
        }
        tables["named in the model's card, alone"] = geometry.mantel(
            apart, card, permutations=permutations
        )
        tables["family given script and card"] = geometry.mantel(
            apart,
            {"family": kin["family"]},
            given={"script": kin["script"], **card},
            permutations=permutations,
        )
    if found := distances(folder, subject.bench):
        langs, given, _ = found
        apart = part(apart, subject.bench, langs)
        everything = {**given, "script": differs([language(iso).script for iso in langs])}
        tables = {
            "Mantel r, each distance alone": geometry.mantel(
                apart, given, permutations=permutations
            ),
            **tables,
            "regression on all five, β": geometry.regression(
                apart, everything, permutations=permutations
            ),
            "rank correlation, each alone": geometry.mantel(
                apart, given, rank=True, permutations=permutations
            ),
            "tree given script": geometry.mantel(
                apart,
                {"Glottolog tree": given["Glottolog tree"]},
                given={"script": everything["script"]},
                permutations=permutations,
            ),
        }
    rows = pd.concat(table.assign(panel=panel) for panel, table in tables.items())
    beta = rows["beta"] if "beta" in rows else pd.Series(np.nan, rows.index)
    return rows.assign(
        value=beta.fillna(rows["r"]),
        critical=rows["critical"].where(beta.isna()),
        model=subject.title,
    )


def given_each_other(
    apart: np.ndarray, kin: Mapping[str, np.ndarray], langs: Sequence[str], permutations: int
) -> pd.DataFrame:
    """Family given script and script given family; languages of one script, of one family,
    change places."""
    words = {"family": [language(iso).script for iso in langs], "script": families(langs)}
    tables = [
        geometry.mantel(
            apart, {name: kin[name]}, given=kin, within=groups, permutations=permutations
        )
        for name, groups in words.items()
    ]
    rows = pd.concat(tables).assign(critical=np.nan)  # two tests, so no one band, and p is doubled
    return rows.assign(p_corrected=(2 * rows["p_corrected"]).clip(upper=1)).sort_values(
        "layer", kind="stable"
    )


def draw_explained(book: Book, subject: Subject, folder: Path) -> pd.DataFrame:
    table = explain(subject, folder, book.settings.permutations)
    shown = table[
        table["panel"].str.contains("Mantel|partial|regression")
    ]  # the rest is in the file of data
    note = (
        f"{subject.title}; {book.settings.permutations:,} permutations; in the panel of partial r "
        "only languages of "
        "one script, or of one family, change places, and p is corrected for the layers and doubled"
    )
    if "r2" in table:
        share = table.groupby("layer")["r2"].first()
        note += f"; the regression explains {share.min():.0%} to {share.max():.0%} of the variance, by layer"
    figure = figures.explained(shown, note=note)
    book.add(
        f"explained-{subject.name}",
        figure,
        table,
        height=125 if shown["panel"].nunique() > 2 else 75,
    )
    return table


def numbers(tables: Mapping[str, pd.DataFrame], explained: Mapping[str, pd.DataFrame]) -> str:
    """Three tables in Markdown: statistics at some layers, families beside those of the first
    layer, and the layer where each distance explains most."""
    lines = [
        "| model | layer | cosine, raw | within family | between | neighbour of the family | gap / "
        "norm | rank |"
    ]
    lines.append("|---" * 8 + "|")
    for table in tables.values():
        kept = SHOWN if len(table) > 16 else range(16)
        for row in table[table["layer"].isin(kept)].to_dict("records"):
            near = f"{row['accuracy'] * row['counted']:.0f}/{row['counted']}"
            means = f"{row['raw']:.2f} | {row['within']:.3f} | {row['between']:.3f} | {near}"
            rest = f"{row['gap_ratio']:.2f} | {row['effective_rank']:.1f}"
            lines.append(f"| {row['model']} | {row['layer']} | {means} | {rest} |")
    lines += ["", *kinship(tables), ""]
    lines += [
        "| model | test | n | distance | largest at layer | value | corrected p |",
        "|---" * 7 + "|",
    ]
    for table in explained.values():
        for _, part in table.groupby(["panel", "distance"], sort=False):
            most = part.iloc[part["value"].abs().to_numpy().argmax()]
            value = f"{most['layer']} | {most['value']:.2f} | {most['p_corrected']:.4f}"
            lines.append(
                f"| {most['model']} | {most['panel']} | {most['n']} | {most['distance']} | {value} "
                "|"
            )
    return "\n".join(lines)


def kinship(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """Families at the layer where most languages have a neighbour of theirs: against labels
    permuted within scripts, and against the first layer."""
    lines = [
        "| model | families of | languages | best layer | neighbour of the family | p within scripts "
        "| at layer 0 | more, fewer | p of more |",
        "|---" * 9 + "|",
    ]
    for table in tables.values():
        for name, least in (("", "three or more"), ("any_", "two or more")):
            row = table.iloc[0]
            counted, best = int(row[f"{name}counted"]), int(row[f"{name}best"])
            near = round(table[f"{name}accuracy"].max() * counted)
            zero = round(row[f"{name}accuracy"] * counted)
            tested = f"{row[f'{name}gained']}, {row[f'{name}lost']} | {row[f'{name}first_p']:.2f}"
            lines.append(
                f"| {row['model']} | {least} | {counted} | {best} | {near} | "
                f"{row[f'{name}scripts_p']:.4f} | {zero} | {tested} |"
            )
    return lines


def fill(page: Path, text: str, pictures: Path) -> None:
    """Put the tables between the marks of a page, and the pictures that it shows into its folder
    of images; of the documentation's own page keep what `make figures` draws them from."""
    before, _, rest = page.read_text("utf-8").partition(START)
    page.write_text(f"{before}{START}\n\n{text}\n\n{END}{rest.partition(END)[2]}", "utf-8")
    for name, shown in IMAGES.items():
        if (pictures / name).exists():
            (page.parent / "images").mkdir(exist_ok=True)
            shutil.copyfile(pictures / name, page.parent / "images" / shown)
        if page.resolve() == PAGE:
            table = (pictures / name).with_suffix(".csv")
            shutil.copyfile(table, RECORDED / Path(shown).with_suffix(".csv"))


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "folder", nargs="?", type=Path, default=DATA, help="holds directions/ and typology/"
    )
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument(
        "--formats", nargs="*", default=["pdf", "svg"], help="beside HTML: pdf, svg, png, or none"
    )
    parser.add_argument("--permutations", type=int, default=9999)
    parser.add_argument("--resamples", type=int, default=500)
    parser.add_argument(
        "--docs", type=Path, help="a page to write the tables into, such as docs/atlas.md"
    )
    options = parser.parse_args(words)
    settings = Settings(
        options.out, tuple(options.formats), options.permutations, options.resamples
    )
    book, subjects = Book(settings), [*released(options.folder), polyglot()]
    tables = {subject.name: by_layer(subject, settings) for subject in subjects}
    explained = {}
    for subject in subjects:
        layer = best_layer(tables[subject.name])
        draw_cosines(book, subject, layer)
        draw_tree(book, subject, layer)
        draw_maps(book, subject, layer)
        draw_tangle(book, subject, layer, options.folder)
        explained[subject.name] = draw_explained(book, subject, options.folder)
    for name, group in (("8b", subjects[:-1]), ("polyglot", subjects[-1:])):
        if group:
            data = pd.concat([tables[subject.name] for subject in group])
            book.add(f"depth-{name}", figures.depth(data), data, height=105)
    book.close()
    told = numbers(tables, explained)
    (options.out / "numbers.md").write_text(told + "\n", "utf-8")
    if options.docs:
        fill(options.docs, told, options.out)
    if len(subjects) == 1:
        print(WHERE.format(folder=options.folder))


if __name__ == "__main__":
    try:
        main()
    except SteerlabError as error:
        raise SystemExit(f"atlas: {error}") from error
