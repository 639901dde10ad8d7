"""Write a run's headline table into docs/results.md: `python experiments/headline.py
runs/polyglot-parallel`."""

import json
import re
import sys
import textwrap
from html import unescape
from pathlib import Path

from headline_costs import at_equal_cost

from steerlab.studies.html.formats import FIXED, probability
from steerlab.studies.main.page.identifiers import identifiers_note
from steerlab.studies.main.page.inference import power_note
from steerlab.studies.main.page.sentences import families_note

PAGE = Path(__file__).parents[1] / "docs" / "results.md"
START, END = (
    "<!-- headline: experiments/headline.py writes what follows -->",
    "<!-- headline ends -->",
)
NAMES = {
    "diffmean": "DiffMean, add",
    "lda": "LDA, add",
    "pca": "PCA of pairs, add",
    "probe": "probe, add",
    "eigengap": "eigengap, add",
    "diffmean_rotate": "DiffMean, rotate",
}


def triple(value: list[float] | None, *, digits: int = 2) -> str:
    if value is None:
        return ""
    middle, low, high = (f"{part:.{digits}f}" for part in value)
    return f"{middle} [{low}, {high}]"


def text(html: str) -> str:
    """A note of the page as plain text, in one line; spaces that hold a line together stay."""
    return re.sub(r"[ \n]+", " ", unescape(re.sub("<[^>]*>", "", html))).strip()


def wrapped(note: str) -> str:
    """Lines of the page, broken at no space that holds."""
    return textwrap.fill(note, 120, break_long_words=False, break_on_hyphens=False).replace(
        FIXED, " "
    )


def along(doses: dict) -> str:
    """The least dose for LFS and the area under joint, a row for each method."""
    lines = [
        f"| method | layer | least dose for LFS {doses['level']:g} | area under joint |",
        "|---" * 4 + "|",
    ]
    for name, row in doses["curves"].items():
        least, dose = row["least"], row["least"]["dose"]
        bound = "≤ " if least["said"] == "at the smallest dose" else ""
        said = (
            f"not reached (at most {least['highest']:.2f})"
            if dose is None
            else f"{bound}{dose:.2f}"
        )
        lines.append(
            f"| {NAMES.get(name, name)} | {row['layer']} | {said} | {triple(row['area'])} |"
        )
    if doses["range"] is None:
        return "\n".join(lines)
    low, high = doses["range"]
    note = f"On dev lines, at each method's chosen layer; the area is the mean of joint at doses {low:.2f} to {high:.2f}."
    return "\n".join([*lines, "", note])


def table(summary: dict) -> str:
    lines = [
        "| method | layer | strength | joint | of the ceiling | faithful | chrF++ | LFS | relevance "
        "| bits per byte, ratio | dose |"
    ]
    lines.append("|---" * 11 + "|")
    for name, row in summary["results"].items():
        setting = (
            ["", ""] if row["operator"] == "none" else [str(row["layer"]), f"{row['strength']:g}"]
        )
        scores = [
            triple(row.get("joint")),
            # An interval of it would be that of joint, on another scale.
            f"{row['joint_of_ceiling'][0]:.2f}",
            triple(row.get("faithful")),
            triple(row.get("chrfpp"), digits=1),
            *(triple(row.get(key)) for key in ("lfs", "relevance", "bits_per_byte_ratio")),
        ]
        label = NAMES.get(name, f"*{name}*")
        lines.append("| " + " | ".join([label, *setting, *scores, f"{row['dose']:.2f}"]) + " |")
    tested = summary["tests"]["pairs"]
    less = ", ".join(
        f"{name} {triple(row['joint'])} (p\xa0{probability(tested['diffmean'][name]['p_holm'])})"
        for name, row in summary["differences"].items()
    )
    among = ", ".join(
        f"{NAMES.get(name, name)} {row['diffmean']['difference']:+.2f} "
        f"(p\xa0{probability(row['diffmean']['p_holm'])})"
        for name, row in tested.items()
        if "diffmean" in row
    )
    less = wrapped(
        f"DiffMean's joint minus that of each control: {less}. Joint of the other methods, minus DiffMean's: {among}."
    )
    ceiling = next(row["ceiling"][0] for row in summary["results"].values())
    return f"""
`make run`: {summary["model"]}, {summary["source"]} to {len(summary["targets"])} languages, {summary["n_sentences"]}
test sentences, {summary["n_outputs"]} outputs a method, {summary["processor_seconds"]:.0f} seconds of processor time
({summary["seconds"]:.0f} by the clock, beside whatever else ran) and {summary["peak_rss_bytes"] / 2**30:.1f} GiB. Chance for relevance is {summary["chance"]:.3f};
controls in italics; brackets are 95 % intervals. `joint` is right language, own sentence
recognised; `of the ceiling` is over the references' own {ceiling:.3f}; outputs have at most
{summary.get("new_tokens", 32)} tokens.
Chosen {summary["choice"]}.

{chr(10).join(lines)}

{less}

{wrapped(text(power_note(summary)))}

{wrapped(text(identifiers_note(summary)))}

{along(summary["doses"])}

{at_equal_cost(summary, NAMES)}

{wrapped("Families. " + text(families_note(summary)))}
"""


def main(folder: str) -> None:
    summary = json.loads((Path(folder) / "summary.json").read_text("utf-8"))
    before, _, rest = PAGE.read_text("utf-8").partition(START)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{START}\n{table(summary)}\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
