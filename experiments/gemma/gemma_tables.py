"""The tables of docs/gemma.md, each from one record."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from steerlab.analysis.tables import markdown, spelled
from steerlab.core.languages import language
from steerlab.figures.style import CONTROLS
from steerlab.studies.html.formats import probability, signed

Record = Mapping[str, Any]

NAMES = {
    "diffmean": "DiffMean, add",
    "lda": "LDA, add",
    "pca": "PCA of pairs, add",
    "probe": "probe, add",
    "eigengap": "eigengap, add",
    "diffmean_rotate": "DiffMean, rotate",
    "unsteered": "unsteered",
    "random isotropic": "random, isotropic",
    "random covariance": "random, covariance",
    "shuffled": "shuffled labels",
    "wrong": "wrong language",
    "prompt": "zero-shot prompt",
    "fewshot": "few-shot prompt, three translated examples",
}
COLUMNS = {
    "joint": "joint",
    "joint_all": "among all lines",
    "faithful": "faithful",
    "chrfpp": "chrF++",
    "echo": "echo",
    "lfs": "LFS",
    "bits_per_byte_ratio": "bits per byte, ratio",
}


def named(name: str) -> str:
    """A method's name, a control's in italics."""
    shown = NAMES.get(name, name)
    return f"*{shown}*" if name in CONTROLS else shown


def cells_of(result: Record, columns: Sequence[str] = tuple(COLUMNS)) -> dict[str, str]:
    """Setting, scores and costs of one result."""
    steered = result["operator"] != "none"
    cells = {
        "layer": str(result["layer"]) if steered else "",
        "strength": f"{result['strength']:g}" if steered else "",
    }
    for key in columns:
        digits = 1 if key == "chrfpp" else 2
        cells[COLUMNS[key]] = spelled(result[key], digits) if key in result else ""
    moved = result.get("displacement")
    cells["dose"] = f"{result['dose']:.2f}"
    cells["displacement"] = "" if moved is None else f"{moved:.2f}"
    return cells


def headline(run: Record) -> str:
    """Every method and control of the run."""
    rows = [{"method": named(name), **cells_of(row)} for name, row in run["results"].items()]
    return markdown(pd.DataFrame(rows))


def differences(run: Record, main: str = "diffmean") -> str:
    """The main method's joint less that of each control, and the other methods' less its."""
    tested = run["tests"]["pairs"]
    rows = [
        {
            "less": named(name),
            "joint": spelled_signed(row["joint"]),
            "adjusted p": probability(tested[main][name]["p_holm"]).removeprefix("=\xa0"),
        }
        for name, row in run["differences"].items()
    ]
    return markdown(pd.DataFrame(rows))


def spelled_signed(interval: Sequence[float], digits: int = 2) -> str:
    """A difference with its interval."""
    value, low, high = (signed(number, digits) for number in interval)
    return f"{value} [{low}, {high}]"


def by_target(run: Record) -> str:
    """Joint and chrF++ of each target."""
    rows = []
    for target, row in sorted(
        run["by target"].items(), key=lambda item: -item[1]["diffmean joint"]
    ):
        cells = {"target": f"{language(target).name}", "family": language(target).family}
        for name in ("unsteered", "prompt", "diffmean", "fewshot"):
            if f"{name} joint" in row:
                cells[f"{NAMES[name].partition(',')[0]}: joint"] = f"{row[f'{name} joint']:.2f}"
                cells[f"{NAMES[name].partition(',')[0]}: chrF++"] = f"{row[f'{name} chrfpp']:.0f}"
        rows.append(cells)
    return markdown(pd.DataFrame(rows))


def layers(depth: Record) -> str:
    """Every layer on test, at its own strength."""
    rows = []
    for layer, row in depth["layers"].items():
        cells = cells_of(row, ("joint", "joint_all", "faithful", "chrfpp", "lfs"))
        rows.append({"layer": layer, **{key: cells[key] for key in cells if key != "layer"}})
    return markdown(pd.DataFrame(rows))


def strengths(depth: Record) -> str:
    """Joint on dev at every layer and strength."""
    table = pd.DataFrame(depth["dev"]).pivot(index="layer", columns="strength", values="joint")
    shown = table.map(lambda value: f"{value:.2f}").reset_index()
    shown.columns = ["layer", *(f"{strength:g}" for strength in table.columns)]
    return markdown(shown)


def estimators(record: Record) -> str:
    """Every estimator and operator, the best first."""
    rows = []
    results = record["results"].items()
    for name, row in sorted(results, key=lambda item: -item[1]["joint"][0]):
        p = row["p_holm"]
        rows.append(
            {
                "estimator": name.removesuffix("_rotate"),
                "operator": row["operator"],
                **cells_of(row, ("joint", "faithful", "chrfpp", "lfs")),
                "minus DiffMean": "" if p is None else signed(row["difference"]),
                "adjusted p": "" if p is None else probability(p).removeprefix("=\xa0"),
                "cosine to DiffMean": f"{row['cosine']:.2f}",
            }
        )
    return markdown(pd.DataFrame(rows))


def shrinkage(record: Record) -> str:
    """LDA by how much of its covariance is the identity, from Ledoit and Wolf's share to DiffMean,
    at its end."""
    rows = []
    for name, row in record["results"].items():
        rows.append(
            {
                "estimator": name,
                **cells_of(row, ("joint", "faithful", "chrfpp", "lfs")),
                "cosine to DiffMean": f"{row['cosine']:.2f}",
            }
        )
    return markdown(pd.DataFrame(rows))


def removal(found: Record) -> str:
    """The share still in the prompt's language, by how much of a direction is removed."""
    table = pd.DataFrame(found["removal"])
    table["shown"] = [
        f"{row.value:.2f} [{row.low:.2f}, {row.high:.2f}]" for row in table.itertuples()
    ]
    wide = table.pivot(index="by", columns="x", values="shown").fillna("").reset_index()
    wide["by"] = wide["by"].str.removeprefix("removal ")
    wide.columns = ["removed", *(f"{x:g}" for x in wide.columns[1:])]
    return markdown(wide)


def matrix(effects: Record) -> str:
    """The rise of every language's nats per token under every edit."""
    rows = []
    for lang, row in effects["matrix"].items():
        cells = {"text in": language(lang).name}
        for edit, value in row.items():
            heading = f"to {edit}" if edit != "control" else "*random*"
            cells[heading] = f"**{value:.2f}**" if edit == lang else f"{value:.2f}"
        rows.append(cells)
    return markdown(pd.DataFrame(rows))


def compared(record: Record) -> str:
    """The rows of a smaller job."""
    rows = [
        {
            "method": named(name),
            **cells_of(row, ("joint", "joint_all", "faithful", "chrfpp", "echo", "lfs")),
            "DiffMean less it": spelled_signed(record["differences"][name])
            if name in record["differences"]
            else "",
        }
        for name, row in record["results"].items()
    ]
    return markdown(pd.DataFrame(rows))


def beside(atlas: Record) -> str:
    """The four models at five depths, on the same languages."""
    rows = []
    for title, model in atlas["models"].items():
        for row in model["depths"]:
            rows.append(
                {
                    "model": title,
                    "layer": f"{row['layer']:.0f} of {model['layers']}",
                    "cosine, raw": f"{row['raw']:.2f}",
                    "within family": f"{row['within']:.2f}",
                    "between": f"{row['between']:.2f}",
                    "neighbour of the family": f"{row['accuracy']:.2f}",
                    "gap / norm": f"{row['gap_ratio']:.2f}",
                    "rank": f"{row['effective_rank']:.1f}",
                }
            )
    return markdown(pd.DataFrame(rows))


def alike(atlas: Record) -> str:
    """How far two models' distances go together."""
    rows = []
    for names, depths in atlas["alike"].items():
        cells = {"models": names}
        for row in depths:
            p = probability(row["p"]).removeprefix("=\xa0")
            cells[f"depth {row['depth']:g}"] = f"{row['r']:.2f} (p {p})"
        rows.append(cells)
    return markdown(pd.DataFrame(rows))


def cosines(precision: Record) -> str:
    """The directions of one dtype against those of the other, by layer."""
    found = precision["cosines"]
    rows = [
        {"layer": layer, "mean": f"{mean:.5f}", "least": f"{least:.5f}"}
        for layer, (mean, least) in enumerate(zip(found["mean"], found["least"], strict=True))
    ]
    return markdown(pd.DataFrame(rows))


def outputs(run: Record, name: str) -> str:
    """Outputs drawn at random, beside their sentence and its reference."""
    rows = [
        {
            "to": language(row["target"]).name,
            "sentence": escaped(row["question"]),
            "output": escaped(row["output"]),
            "reference": escaped(row["reference"]),
            "identified as": row["language"],
            "chrF++": f"{row['chrfpp']:.0f}",
            "faithful": "yes" if row["faithful"] else "no",
        }
        for row in run["samples"][name]
    ]
    return markdown(pd.DataFrame(rows))


def escaped(text: str) -> str:
    """A text in a cell: what Markdown or HTML would take for its own is escaped."""
    text = " ".join(str(text).split()).replace("\\", "\\\\")
    for sign in "|*_`[]":
        text = text.replace(sign, f"\\{sign}")
    return text.replace("&", "&amp;").replace("<", "&lt;") or "(nothing)"


def costs(records: Mapping[str, Record]) -> str:
    """Seconds and memory of every job, with its command."""
    rows = []
    for name, record in records.items():
        spent = record["costs"]
        # The run itself was timed from outside; the job that reads its folder is no part of it.
        if name == "run":
            timed = record["time"]
            spent = {
                "command": "make gemma",
                "seconds": timed.get("wall seconds", record["seconds"]),
                "cpu seconds": timed.get("cpu seconds"),
                "peak bytes": timed.get("peak bytes", record.get("peak_rss_bytes")),
            }
        cpu, peak = spent["cpu seconds"], spent["peak bytes"]
        rows.append(
            {
                "command": f"`{spent['command']}`",
                "wall, min": f"{spent['seconds'] / 60:.1f}",
                "CPU, min": "" if cpu is None else f"{cpu / 60:.1f}",
                "memory, GiB": "" if peak is None else f"{peak / 2**30:.1f}",
            }
        )
    return markdown(pd.DataFrame(rows))
