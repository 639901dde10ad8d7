"""docs/gemma.md, made of what the jobs recorded; nothing in it is typed by hand.

A job that was not run is named as such, with its command; every sentence with a number in it takes
the number from a record.
"""

import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import claims
import gemma_tables as tables
import through_the_lens
from gemma_bed import RECORDED, ROOT
from gemma_tables import Record, spelled_signed

from steerlab.analysis.tables import spelled
from steerlab.core.errors import SteerlabError
from steerlab.core.files import read_json
from steerlab.core.languages import language
from steerlab.studies.html.formats import probability

PAGE = ROOT / "docs" / "gemma.md"
ESTIMATORS = ("lda", "pca", "probe", "eigengap")  # beside DiffMean, as CLaS-Bench has them
# The jobs in the order in which they are run.
ORDER = (
    "run",
    "depth",
    "estimators",
    "effects",
    "atlas",
    "german",
    "news",
    "precision",
)
Records = Mapping[str, Record]


def read(folder: Path = RECORDED) -> dict[str, Record]:
    """The record of each job that was run, by the job's name."""
    return {file.stem: read_json(file) for file in sorted(folder.glob("*.json"))}


# -------------------------------------------------------------------------------------- the parts


def opening(records: Records) -> str:
    run = records["run"]
    results = run["results"]
    main = results["diffmean"]
    asked = {name: spelled(results[name]["joint"]) for name in ("unsteered", "prompt", "fewshot")}
    form = run["prompt_form"]
    shot = results["fewshot"]
    first = (
        f"**Steered, {spelled(main['joint'])} of {main['n']:,} outputs in {len(run['targets'])} "
        "languages are in the language and recognised as their own sentence among 32; unsteered "
        f"{asked['unsteered']}, asked in the prompt {asked['prompt']}, shown three translations "
        f"{asked['fewshot']}.**"
    )
    second = (
        f"It is not yet translation by a stricter reading: {spelled(main['faithful'])} of the "
        f"outputs say their sentence and nothing else (`faithful`; {spelled(shot['faithful'])} with "
        f"three translations), chrF++ is {main['chrfpp'][0]:.0f} ({shot['chrfpp'][0]:.0f}). But "
        f"{spelled(main['lfs'])} are in the language, and of the copies, "
        f"{spelled(results['unsteered']['echo'])} unsteered, {spelled(main['echo'])} are left."
    )
    setup = (
        f"Model: google/gemma-3-270m, the base model, {run['weights'][:12]} as GGUF (Q4_K_M, "
        f"unpacked to {run['dtype']}), 18 layers; its weights come under the Gemma Terms of Use, "
        "are fetched by `make gemma` and are in no file here. Sentences: the packaged corpus; "
        f"directions from its split `estimate`, layer {main['layer']} and strength "
        f"{main['strength']:g} natural gaps chosen on dev, reported on test. Brackets are 95 % "
        "intervals over sentences; rows in italics are controls. Made by `python "
        "experiments/gemma/jobs.py page` from `experiments/gemma/recorded`; the commands are at the "
        "end."
    )
    return f"""# Gemma 3 270M: one vector turns copying into translation

A base model of 270 M parameters reads a few English sentences, each said twice, and then one more, said once. Left
alone it says that sentence again. With *one* vector added to its residual stream, the difference of the mean
activations of two languages, it says it **in the other language**: no translation, no parallel text and no word of
another language stands in the prompt.

{wrapped(first)}

{wrapped(second)}

![Joint of DiffMean beside controls and prompts](images/gemma-headline.svg)

{wrapped(setup)}

## The form of the prompt

{form_note(form)}
"""


def form_note(form: Record) -> str:
    """Why the prompts have their form."""
    if "copied" not in form:
        return "The form was asked for."
    share = form["copied"] / form["of"]
    than = "more" if form["above"] else "not more"
    taken = form["tried"] if form["above"] else "line"
    return wrapped(
        f"`--prompt auto` tried `{form['tried']}` (that many sentences of `estimate`, in English, "
        f"each said twice) on dev: unsteered, the model copies {form['copied']} of {form['of']} "
        f"lines word for word ({share:.0%}), {than} than the {form['level']:.0%} set before any "
        f"run. So the form is `{taken}`. With it the null is clean: what an edit changes is the "
        "language."
    )


def headline(records: Records) -> str:
    run = records["run"]
    return f"""## Methods and controls

English to {len(run["targets"])} languages, {run["n_sentences"]} test sentences, n = {run["n_outputs"]} outputs a row;
chance among 32 is {run["chance"]:.3f}. `among all lines`: joint where the own reference has to be the nearest of all
test lines. `faithful`: what says its sentence ([how](faithful.md)). `echo`: outputs that are the source sentence still.
The few-shot prompt needs parallel text, which no direction here does.

{tables.headline(run)}

DiffMean's joint minus that of each control, p by sign flips over sentences, adjusted by Holm's method over
{run["tests"]["comparisons"]} comparisons:

{tables.differences(run)}

{others(run)}

{tables.by_target(run)}
"""


def others(run: Record) -> str:
    """The other methods less the main one."""
    told = [
        f"{tables.NAMES.get(name, name)} {row['diffmean']['difference']:+.3f} "
        f"(p {probability(row['diffmean']['p_holm'])})"
        for name, row in run["tests"]["pairs"].items()
        if "diffmean" in row
    ]
    return (
        wrapped(f"Joint of the other methods, minus DiffMean's: {'; '.join(told)}.") if told else ""
    )


def depth(records: Records) -> str:
    found = records["depth"]
    half = found["halves"]
    layer, strength = found["choice"]
    text = wrapped(
        "DiffMean with `add` at every layer: strength chosen for each layer on "
        f"{found['dev lines']} dev lines and {len(found['dev targets'])} targets, reported on "
        f"{found['test lines']} test lines and {len(found['targets'])} targets. Dev chooses layer "
        f"{layer} at {strength:g} over all. The best layer of the later half, "
        f"{half['late layer']}, less that of the earlier half, {half['early layer']}: "
        f"{spelled_signed(half['late less early'])} joint on test."
    )
    return f"""## Where in the depth

{text}

![Joint by layer and target](images/gemma-depth.svg)

{tables.layers(found)}

Joint on dev by layer and strength (natural gaps):

{tables.strengths(found)}
"""


def estimators(records: Records) -> str:
    found = records["estimators"]
    twins = "; ".join(f"`{name}` is `{other}`" for name, other in found["same"].items())
    refused = "; ".join(f"`{name}`: {reason}" for name, reason in found["refused"].items())
    raced, grid = found["outputs on dev"], found["of the whole grid"]
    return f"""## Every estimator, with `add` and with `rotate`

Layer (of {", ".join(map(str, found["layers"]))}) and strength (of {listed(found["strengths"])}) raced on
{found["dev lines"]} dev lines and {len(found["dev targets"])} targets ({raced:,} outputs of the {grid:,} of the whole
grid), reported on {found["test lines"]} test lines and {len(found["targets"])} targets
({", ".join(found["targets"])}). p: sign flips over sentences, Holm's method over {found["comparisons"]} comparisons
with DiffMean, `add`.

{tables.estimators(found)}

Run once, since their vectors are those of another: {twins or "none"}. Not possible with these languages:
{refused or "none"}.

{shrinkage(found["shrinkage"])}
"""


def shrinkage(found: Record) -> str:
    """Why discriminants steer badly here."""
    text = wrapped(
        "Discriminants find the direction that *reads* a language best, S⁻¹(mean of the target - "
        "mean of the source), S the covariance within languages; what a language *adds* to the "
        "stream is S times that, the difference of the means. On this model the two lie far apart, "
        f"for S is far from round: at layer {found['layer']} one of its eigenvalues holds "
        f"{found['largest eigenvalue']:.0%} of the variance, and its effective rank is "
        f"{found['effective rank']:.1f}. LDA at strength {found['strength']:g} there, with Ledoit "
        "and Wolf's share of the identity in S (`lda`) and with larger ones, at whose end stands "
        "DiffMean; nothing was chosen:"
    )
    return f"{text}\n\n{tables.shrinkage(found)}"


def listed(strengths: Mapping[str, Any]) -> str:
    return "; ".join(
        f"`{name}` {', '.join(f'{value:g}' for value in values)}"
        for name, values in strengths.items()
    )


def removal(records: Records) -> str:
    found = records["run"]["removal"]
    return f"""## Removing a language

The model goes on after two lines of a language, as it is and with a growing fraction of the language's own direction
taken out at layer {found["layer"]}; the share of continuations still in the prompt's language
({", ".join(found["languages"])}, {found["lines"]} dev lines each).

{tables.removal(found)}

`ablate` takes out the language's own direction, `random` as large a fraction of random ones, and `random, equal dose`
as much of random subspaces as moves the stream equally far: beside that control a language that goes is no sign that
its own direction was needed.
""" + removal_verdict(found)


def removal_verdict(found: Record) -> str:
    """Whether taking out the own direction does more than as large a push along random ones."""
    last = max(row["x"] for row in found["removal"])
    left = {row["by"].removeprefix("removal "): row for row in found["removal"] if row["x"] == last}
    own, same = left.get("ablate"), left.get("random, equal dose")
    if own is None or same is None:
        return ""
    if own["high"] < same["low"]:
        verdict = "so here the direction itself counts"
    else:
        verdict = "so here it is the size of the change that counts, not the direction"
    own, same = ([row[key] for key in ("value", "low", "high")] for row in (own, same))
    text = (
        f"Whole, the own direction leaves {spelled(own)}, that control {spelled(same)}: {verdict}."
    )
    return f"\n{wrapped(text)}\n"


def effects(records: Records) -> str:
    found = records["effects"]
    told = [f"{name} {spelled(value)}" for name, value in found["groups"].items()]
    return f"""## Side effects on other languages

What steering towards one language does to text *in* every language: the rise of its cross-entropy in nats per token,
{found["lines"]} test lines each, under the vector of the table's columns at layer {found["layer"]} and strength
{found["strength"]:g}; the language's own is bold. `random` are random edits of the same dose
({found["doses"]["control"]:.2f}; the vectors' {found["doses"]["edit"]:.2f}).

{wrapped("Mean rise: " + "; ".join(told) + ".")}

{tables.matrix(found)}
"""


def families(records: Records) -> str:
    kin = records["run"]["families"]
    unigram, embedding = kin["beyond"]["unigram"], kin["beyond"]["embedding"]
    more = unigram["p_holm"] < claims.ALPHA and embedding["p_holm"] < claims.ALPHA
    verdict = (
        "So the directions have more of the families than the tokens that languages share."
        if more
        else "So this is no more than the tokens that languages share may explain."
    )
    text = wrapped(
        f"At layer {kin['layer']}, {kin['nearest_neighbour']:.0%} of {kin['n']} languages have "
        f"their nearest neighbour in their own family (p {probability(kin['p'])} against chance: "
        "labels permuted within scripts, maximum over layers); by token unigrams alone "
        f"{kin['unigram_nearest_neighbour']:.0%} (languages gained {unigram['gained']}, lost "
        f"{unigram['lost']}; p {probability(unigram['p_holm'])}), by the embedding layer "
        f"{kin['embedding_nearest_neighbour']:.0%} (gained {embedding['gained']}, lost "
        f"{embedding['lost']}; p {probability(embedding['p_holm'])}). {verdict} The tree's "
        f"cophenetic correlation is {kin['cophenetic']:.2f}; vectors without structure have "
        f"{kin['cophenetic_null'][0]:.2f} on average, and 95 % of them less than "
        f"{kin['cophenetic_null'][1]:.2f}."
    )
    return f"## Families\n\n{text}\n"


def atlas(records: Records) -> str:
    found = records["atlas"]
    shared = found["languages"]
    kin = [
        f"{title}: {model['families']['accuracy']:.0%} of {model['families']['n']} at its best "
        f"layer, {model['families']['first']:.0%} at layer 0 (p of more "
        f"{probability(model['families']['p of more'])})"
        for title, model in found["models"].items()
    ]
    start = (
        f"Language means of {len(shared)} languages that all have ({' '.join(shared)}), centred "
        "over these, with the statistics of [Atlas](atlas.md) at five shares of the depth. The 8B "
        "models' means are CLaS-Bench's release, of about ten million tokens a language; the small "
        "ones' are of the packaged corpus' `estimate` lines."
    )
    return f"""## The atlas, beside polyglot and two 8B models

{wrapped(start)}

{tables.beside(found)}

How far the distances between languages (1 - centred cosine) of two models go together, a Mantel test at each depth,
corrected for the depths:

{tables.alike(found)}

{wrapped("Neighbours of the own family. " + "; ".join(kin) + ".")}
"""


def german(records: Records) -> str:
    return "## From German\n\n" + smaller(records["german"], "The packaged corpus")


def news(records: Records) -> str:
    found = records["news"]
    start = (
        f"News ({found['corpus']}), directions from {found['estimate lines']} of its own lines, "
        "none of whose text is kept"
    )
    return "## A corpus of news\n\n" + smaller(found, start)


def smaller(found: Record, start: str) -> str:
    """The text of a smaller job, and its table."""
    main = found["results"]["diffmean"]
    text = wrapped(
        f"{start}: {language(found['source']).name} to {len(found['targets'])} languages, layer (of "
        f"{', '.join(map(str, found['layers']))}) and strength (of "
        f"{', '.join(f'{value:g}' for value in found['strengths'])}) chosen on "
        f"{found['dev lines']} dev lines and {len(found['dev targets'])} targets, reported on "
        f"{found['test lines']} test lines, n = {main['n']}. Random directions have the layer and "
        "the strength of DiffMean."
    )
    best = sorted(found["by target"].items(), key=lambda item: -item[1]["diffmean"])
    each = ", ".join(f"{target} {row['diffmean']:.2f}" for target, row in best)
    return f"{text}\n\n{tables.compared(found)}\n\n{wrapped(f'DiffMean by target: {each}.')}\n"


def precision(records: Records) -> str:
    found = records["precision"]
    results = found["results"]
    each = ", ".join(f"{name} {spelled(results[name]['joint'])}" for name in found["dtypes"])
    least = min(found["cosines"]["least"])
    text = wrapped(
        f"{found['outputs']} outputs ({len(found['targets'])} targets, {found['lines']} test lines, "
        f"layer {found['layer']}, strength {found['strength']:g}, the same vectors): "
        f"{found['equal']} are the same to the letter, {found['same verdict']} have the same "
        f"verdict. Joint: {each}; difference {spelled_signed(found['difference'])}. Each dtype's "
        f"own directions have a cosine of at least {least:.5f} with the other's, at every layer "
        "and for every target."
    )
    dtypes = " against ".join(found["dtypes"])
    return f"## Precision: {dtypes}\n\n{text}\n\n{tables.cosines(found)}\n"


def samples(records: Records) -> str:
    run = records["run"]
    drawn = run["samples"]
    return f"""## Ten outputs

Drawn with seed 0 from all of DiffMean's test outputs in the table above, not picked: five of the
{drawn["joint, of"]} that are joint, and five of the {drawn["not joint, of"]} that are not.

### In the language, own sentence recognised

{tables.outputs(run, "joint")}

### Not

{tables.outputs(run, "not joint")}
"""


def verdicts(records: Records) -> str:
    return f"""## Published claims

The criteria are in `experiments/gemma/claims.py` and were committed before the run. One base model of 270 M parameters
refutes nothing that was found on 8B models.

{claims.table(found_for_claims(records))}
"""


def costs(records: Records) -> str:
    run = records["run"]
    own = {job: records[job] for job in ORDER if job in records and "costs" in records[job]}
    return f"""## Time, memory and commands

On two cores with AVX-512 and bf16. The run had two threads and came before all else that wanted the cores; the other
jobs shared them, so that their CPU time says more than the clock, with one thread each, and a job that goes on after
a stop counts what it did since.

{tables.costs(own)}

`make gemma` is `{" ".join(run["run command"])}`.
"""


SECTIONS: dict[str, tuple[str, Callable[[Records], str]]] = {
    "methods": ("run", headline),
    "depth": ("depth", depth),
    "estimators": ("estimators", estimators),
    "removal": ("run", removal),
    "effects": ("effects", effects),
    "families": ("run", families),
    "atlas": ("atlas", atlas),
    "lens": ("lens", lambda records: through_the_lens.section(records["lens"])),
    "german": ("german", german),
    "news": ("news", news),
    "precision": ("precision", precision),
    "samples": ("run", samples),
    "claims": ("run", verdicts),
    "costs": ("run", costs),
}


# ------------------------------------------------------------------------------------- the claims


# What a record says of itself, beside its numbers.
KEPT_BESIDE = ("costs", "steerlab")


def found_for_claims(records: Records) -> dict[str, Any]:
    """What was found, by the names that `claims` asks for; a job that was not run leaves its
    own out."""
    run = records["run"]
    pairs = run["tests"]["pairs"]
    found: dict[str, Any] = {"differences": run["differences"]}
    less = {
        name: (pairs[name]["diffmean"]["difference"], pairs[name]["diffmean"]["p_holm"])
        for name in ESTIMATORS
        if "diffmean" in pairs.get(name, {})
    }
    if less:
        found["others less diffmean"] = less
    kin = run["families"]
    found["family rate"] = kin["nearest_neighbour"]
    found["family rate, embedding"] = kin["embedding_nearest_neighbour"]
    found["family p"] = kin["beyond"]["embedding"]["p_holm"]
    found |= records.get("depth", {}).get("halves", {})
    if "atlas" in records:
        cosines = [row["raw"] for row in records["atlas"]["whole"]]
        found["cosine in the middle"] = cosines[len(cosines) // 2]
        found["cosine at the end"] = cosines[-1]
    found |= {
        name: value for name, value in records.get("units", {}).items() if name not in KEPT_BESIDE
    }
    ranks = records.get("estimators", {}).get("eigengap ranks")
    if ranks:
        found["eigengap ranks"] = ranks
    return found


# --------------------------------------------------------------------------------------- the page


def page(records: Records) -> str:
    """The whole page; it needs the record of the run."""
    if "run" not in records:
        raise SteerlabError(
            "the page opens with the run of make gemma, which was not recorded; run: python "
            "experiments/gemma run --folder FOLDER"
        )
    parts = [opening(records)]
    missing = []
    for job, make in SECTIONS.values():
        if job in records:
            parts.append(make(records))
        elif job not in missing:
            missing.append(job)
    if missing:
        parts.append(
            f"Not run: {', '.join(f'`python experiments/gemma/jobs.py {job}`' for job in missing)}.\n"
        )
    return "\n".join(parts)


def wrapped(text: str) -> str:
    """A paragraph in lines; what holds together with a no-break space stays."""
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def main(*, draw: bool = True) -> None:
    records = read()
    PAGE.write_text(page(records), "utf-8")
    print(PAGE.relative_to(ROOT))
    if draw:
        import gemma_figures

        try:
            gemma_figures.draw(records)
        except SteerlabError as error:
            print(f"gemma: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
