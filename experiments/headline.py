"""Write a run's headline table into README.md: `python experiments/headline.py runs/polyglot-parallel`."""

import json
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
START, END = "<!-- headline: experiments/headline.py writes what follows -->", "<!-- headline ends -->"
NAMES = {
    "diffmean": "DiffMean, add",
    "lda": "LDA, add",
    "pca": "PCA of pairs, add",
    "probe": "probe, add",
    "eigengap": "eigengap, add",
    "diffmean_rotate": "DiffMean, rotate",
}


def triple(value: list[float] | None) -> str:
    return "" if value is None else f"{value[0]:.2f} [{value[1]:.2f}, {value[2]:.2f}]"


def table(summary: dict) -> str:
    lines = ["| method | layer | strength | joint | LFS | relevance | bits per byte, ratio | dose |"]
    lines.append("|---" * 8 + "|")
    for name, row in summary["results"].items():
        setting = ["", ""] if row["operator"] == "none" else [str(row["layer"]), f"{row['strength']:g}"]
        scores = [triple(row.get(key)) for key in ("joint", "lfs", "relevance", "bits_per_byte_ratio")]
        label = NAMES.get(name, f"*{name}*")
        lines.append("| " + " | ".join([label, *setting, *scores, f"{row['dose']:.2f}"]) + " |")
    less = ", ".join(f"{name} {triple(row['joint'])}" for name, row in summary["differences"].items())
    kin = summary["families"]
    p = f"p = {kin['p']:.4f}"
    return f"""
`make run`: {summary["model"]}, {summary["source"]} to {len(summary["targets"])} languages, {summary["n_sentences"]}
test sentences, {summary["n_outputs"]} outputs a method, {summary["seconds"]:.0f} seconds and
{summary["peak_rss_bytes"] / 2**30:.1f} GiB on two cores without bf16. Chance for relevance is {summary["chance"]:.3f};
controls in italics; brackets are 95 % intervals.

{chr(10).join(lines)}

DiffMean's joint less each control's: {less}.

Families, at layer {kin["layer"]}: the nearest neighbour of {kin["nearest_neighbour"]:.0%} of {kin["n"]} languages is of
their own family ({p}, maximum over layers); from token unigrams alone {kin["unigram_nearest_neighbour"]:.0%}, from the
embedding layer {kin["embedding_nearest_neighbour"]:.0%}, within Latin script {kin["latin_nearest_neighbour"]:.0%}
(p = {kin["latin_p"]:.3f}, {kin["latin_n"]} languages).
"""


def main(folder: str) -> None:
    summary = json.loads((Path(folder) / "summary.json").read_text("utf-8"))
    before, _, rest = README.read_text("utf-8").partition(START)
    _, _, after = rest.partition(END)
    README.write_text(f"{before}{START}\n{table(summary)}\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
