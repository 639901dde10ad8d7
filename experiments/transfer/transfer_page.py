"""docs/transfer.md: which language a language's own direction, or training on it, does something to,
what explains it, what is forgotten, and what an edit does to other abilities.

`python experiments/transfer/transfer_page.py [--model gemma-3-270m] [--typology FOLDER] [--only STEP ...]`
records each step's numbers in `experiments/transfer/recorded` and writes the page of what is there.
FOLDER holds dist_<name>.tsv files, whose licences are their own; without it languages differ by family
and script alone. Fine-tuning is of the model in the package only.
"""

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from fine_tuning import RATE, ROWS, after_steps, read

import steerlab as sl
from steerlab.analysis.effects.learning import forgetting
from steerlab.analysis.effects.transfer import transfer, transfer_matrix, transfer_regression
from steerlab.analysis.intervals import by_sentence
from steerlab.analysis.tables import markdown, spelled
from steerlab.core.directions import Direction
from steerlab.core.files import read_json, write_json
from steerlab.core.languages import families, language, own_scripts
from steerlab.edits import Edit

ROOT = Path(__file__).resolve().parents[2]
RECORDED = Path(__file__).resolve().parent / "recorded"
PAGE = ROOT / "docs" / "transfer.md"
LINES = 12  # test lines of each language
STEPS_OF: dict[str, Any] = {"matrix": 40, "curve": (0, 5, 20, 80)}
CURVES = ("de", "ru", "ja")  # languages whose forgetting is followed
TARGETS = ("de", "ru", "ja")  # edits whose side effects on abilities are measured
LAYERS = {"polyglot": 5, "gemma-3-270m": 8}
TYPOLOGY = {
    "genealogy": "glottolog_tree",
    "syntax": "uriel_syntax_knn",
    "geography": "geo_km",
}


def removal(name: str) -> dict[str, Any]:
    """What projecting each language's direction out costs each language: source = the removed
    one."""
    return without(name, sl.ablate)


def levelled(name: str) -> dict[str, Any]:
    """The same where the part along the direction is set to that of the other languages' mean: a
    stream whose tokens share most of their length keeps what they share."""
    return without(name, partial(sl.affine, level=0.0))


def without(name: str, take: Callable[[Direction], Edit]) -> dict[str, Any]:
    """What an edit of each language's direction costs each language."""
    model, corpus = sl.load(name, dtype="auto"), sl.corpus()
    directions = sl.diffmean(sl.collect(model, corpus.split("estimate")))
    layer = LAYERS[name]
    texts = corpus.split("test").take(LINES)
    edits = {lang: take(directions[lang].at(layer)) for lang in texts.langs}
    rows = sl.effects.language_effects(model, texts, edits)
    table = transfer(rows, value="rise", source="edit", target="language")
    return {"layer": layer, "lines": LINES, "table": table.to_dict("list")}


def tuned(name: str) -> dict[str, Any]:
    """What a brief fine-tune on each language does to each, in bits per byte."""
    model, corpus = sl.load(name), sl.corpus()
    train, texts = corpus.split("estimate"), corpus.split("test").take(LINES)
    before = read(model, texts)
    parts = []
    for lang in texts.langs:
        steps = STEPS_OF["matrix"]
        after = after_steps(model, train[lang], texts, [steps])[steps]
        change = after["bits_per_byte"] - before["bits_per_byte"]
        parts.append(before.assign(source=lang, change=change))
    rows = pd.concat(parts, ignore_index=True)
    table = transfer(rows, value="change", source="source", target="language")
    return {"steps": STEPS_OF["matrix"], "lines": LINES, "table": table.to_dict("list")}


def curves(name: str) -> dict[str, Any]:
    """Forgetting by the number of steps, for a few languages and two seeds."""
    model, corpus = sl.load(name), sl.corpus()
    train, texts = corpus.split("estimate"), corpus.split("test").take(LINES)
    found = []
    for lang in CURVES:
        for seed in (0, 1):
            states = after_steps(model, train[lang], texts, STEPS_OF["curve"], seed=seed)
            for step, after in states.items():
                if step:
                    table = forgetting(states[0], after, learned=[lang])
                    found.append(_summary(table, states[0], after, lang, step, seed))
    return {"lines": LINES, "rows": found}


def _summary(
    table: pd.DataFrame, before: pd.DataFrame, after: pd.DataFrame, lang: str, step: int, seed: int
) -> dict[str, Any]:
    """The change in the learned language, in its family and in the rest, with intervals."""
    family = dict(zip(table["language"], families(table["language"]), strict=True))
    rows = before.assign(change=after["bits_per_byte"] - before["bits_per_byte"])
    kin = rows["language"].map(family) == family[lang]
    own = rows["language"] == lang
    result: dict[str, Any] = {"language": lang, "steps": step, "seed": seed}
    for part, chosen in (("own", own), ("family", kin & ~own), ("others", ~kin)):
        if chosen.any():
            some = rows[chosen]
            values = some["change"].to_numpy(float)
            result[part] = list(by_sentence(values, some["sentence"].to_numpy()))
    clear = table[(table["p_holm"] < 0.05) & ~table["learned"]]
    result["forgotten"] = int((clear["change"] > 0).sum())
    result["gained"] = int((clear["change"] < 0).sum())
    return result


def side_effects(name: str) -> dict[str, Any]:
    """Abilities in eight languages, as the model is and under edits to three."""
    model, corpus = sl.load(name, dtype="auto"), sl.corpus()
    directions = sl.diffmean(sl.collect(model, corpus.split("estimate")))
    layer = LAYERS[name]
    edits = {
        f"to {lang}": sl.add(directions.between("en", lang).at(layer), strength=1.0)
        for lang in TARGETS
    }
    langs = ("en", "de", "fr", "es", "ru", "ja", "hi", "tr")
    items = sl.effects.ability_items(langs)
    texts = [item.prompt for item in items[::40]]
    edits["random"] = sl.effects.random_like(model, texts, edits["to de"], seed=0)
    rows = sl.effects.abilities(model, edits, items=items)
    across = [
        item
        for first, asked, last in (("en", "de", "fr"), ("de", "en", "ru"), ("ja", "es", "en"))
        for item in sl.effects.ability_items([asked], instruction=first, answer=last)
    ]
    mixed = sl.effects.abilities(model, items=across)
    table = sl.effects.abilities_changed(rows)
    return {
        "layer": layer,
        "table": table.to_dict("list"),
        "overall": _overall(rows),
        "mixed": _mixed(mixed),
    }


def _overall(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Each task over all languages, under each edit."""
    found = []
    for (edit, task), part in rows.groupby(["edit", "task"], sort=False):
        values, items = part["correct"].to_numpy(float), part["sentence"].to_numpy()
        found.append(
            {
                "edit": edit,
                "task": task,
                "correct": list(by_sentence(values, items, share=True)),
                "chance": float(part["chance"].mean()),
                "n": len(part),
            }
        )
    return found


def _mixed(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Instruction, question and answer in three languages."""
    found = []
    for (first, asked, last, task), part in rows.groupby(
        ["instruction", "language", "answer", "task"], sort=False
    ):
        values, items = part["correct"].to_numpy(float), part["sentence"].to_numpy()
        found.append(
            {
                "languages": f"{first}, {asked}, {last}",
                "task": task,
                "correct": list(by_sentence(values, items, share=True)),
                "chance": float(part["chance"].mean()),
            }
        )
    return found


def regression(record: dict[str, Any], typology: Path | None) -> dict[str, Any]:
    """What explains the matrix of a step: family, script and, where a folder is named, typology."""
    langs, matrix = transfer_matrix(pd.DataFrame(record["table"]))
    given: dict[str, np.ndarray] = {"script": _differs([own_scripts(lang)[0] for lang in langs])}
    if typology is None:
        given["family"] = _differs(families(langs))
    else:
        for name, file in TYPOLOGY.items():
            table = pd.read_csv(
                typology / f"dist_{file}.tsv", sep="\t", index_col="iso", keep_default_na=False
            )
            given[name] = table.loc[langs, langs].to_numpy(float)
    table = transfer_regression(matrix, given)
    naive = transfer_regression(matrix, given, effects=False)
    return {
        "with": table.to_dict("list"),
        "without": naive.to_dict("list"),
        "typology": typology is not None,
    }


def _differs(words: list[str]) -> np.ndarray:
    return (np.asarray(words)[:, None] != np.asarray(words)).astype(float)


STEPS = {
    "removal": removal,
    "levelled": levelled,
    "tuned": tuned,
    "curves": curves,
    "abilities": side_effects,
}
OF_POLYGLOT = ("tuned", "curves")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=sorted(LAYERS), default="polyglot")
    parser.add_argument("--typology", type=Path, help="a folder with dist_<name>.tsv files")
    parser.add_argument("--only", nargs="*", choices=STEPS, default=list(STEPS))
    given = parser.parse_args()
    RECORDED.mkdir(exist_ok=True)
    for step in given.only:
        if given.model != "polyglot" and step in OF_POLYGLOT:
            continue
        begun = time.process_time()
        record = STEPS[step](given.model)
        if step in ("removal", "levelled", "tuned"):
            record["regression"] = regression(record, given.typology)
        record["cpu_seconds"] = time.process_time() - begun
        write_json(RECORDED / f"{step}-{given.model}.json", record)
        print(f"{step}: {record['cpu_seconds']:.0f} s of processor time", file=sys.stderr)
    PAGE.write_text(page(), "utf-8")


# ------------------------------------------------------------------------------------- the page


def page() -> str:
    lines = [
        "# Transfer, forgetting, abilities",
        "",
        "Written by `python experiments/transfer/transfer_page.py` (with `--model gemma-3-270m` and "
        "`--typology FOLDER`) of what it recorded. Sources are down, targets across; a matrix of "
        "transfer is directed, and both halves are read. Intervals are of 95 %, over sentences or "
        "items.",
    ]
    for name in LAYERS:
        for step, section in SECTIONS.items():
            record = read_json(RECORDED / f"{step}-{name}.json")
            if record:
                lines += ["", *section(name, record)]
    return "\n".join(lines) + "\n"


def _matrix(record: dict[str, Any], digits: int = 2) -> str:
    langs, matrix = transfer_matrix(pd.DataFrame(record["table"]))
    frame = pd.DataFrame({"": langs})
    for column, lang in enumerate(langs):
        cells = [f"{value:.{digits}f}" for value in matrix[:, column]]
        cells[column] = f"**{cells[column]}**"
        frame[lang] = cells
    return markdown(frame)


def _own_and_others(record: dict[str, Any]) -> str:
    _, matrix = transfer_matrix(pd.DataFrame(record["table"]))
    own = matrix.diagonal()
    hurt = int((matrix.argmax(1) == np.arange(len(matrix))).sum())
    helped = int((matrix.argmin(1) == np.arange(len(matrix))).sum())
    others = matrix[~np.eye(len(matrix), dtype=bool)]
    return (
        f"Mean of the own language {own.mean():+.3f}, of the others {others.mean():+.3f}; the own is "
        f"the largest in {hurt} of {len(matrix)} rows, the smallest in {helped}. The two halves "
        f"correlate at {np.corrcoef(_upper(matrix), _upper(matrix.T))[0, 1]:.2f}."
    )


def _upper(matrix: np.ndarray) -> np.ndarray:
    return np.asarray(matrix[np.triu_indices(len(matrix), 1)])


def _regression(record: dict[str, Any]) -> list[str]:
    found = record["regression"]
    table, naive = pd.DataFrame(found["with"]), pd.DataFrame(found["without"])
    frame = pd.DataFrame(
        {
            "distance": table["distance"],
            "β": [f"{value:+.2f}" for value in table["beta"]],
            "partial r": [f"{value:+.2f}" for value in table["r"]],
            "p": [f"{value:.4f}" for value in table["p"]],
            "p, corrected": [f"{value:.4f}" for value in table["p_corrected"]],
            "p without effects": [f"{value:.4f}" for value in naive["p"]],
        }
    )
    return [
        f"Regression on all {int(table['pairs'][0])} ordered pairs of {int(table['n'][0])} languages "
        f"with source and target effects (R² {table['r2'][0]:.2f}, of which the effects alone "
        f"{table['r2_effects'][0]:.2f}); p by 9,999 permutations of the languages:",
        "",
        markdown(frame),
    ]


def _removal(name: str, record: dict[str, Any]) -> list[str]:
    return _taken(name, record, "a language's direction taken away", "is projected out")


def _levelled(name: str, record: dict[str, Any]) -> list[str]:
    return _taken(
        name,
        record,
        "a language's direction set to the mean of the others",
        "is set to the mean of the other languages (`sl.affine(level=0)`)",
    )


def _taken(name: str, record: dict[str, Any], title: str, done: str) -> list[str]:
    return [
        f"## {name}: {title}",
        "",
        f"The rise of cross-entropy (nats per token) of each language's text where the direction of the "
        f"language at the left {done} at layer {record['layer']}; {record['lines']} test lines. "
        f"{record['cpu_seconds']:.0f} s of processor time.",
        "",
        _matrix(record),
        "",
        _own_and_others(record),
        "",
        *_regression(record),
    ]


def _tuned(name: str, record: dict[str, Any]) -> list[str]:
    return [
        f"## {name}: trained on one language",
        "",
        f"The change of bits per byte of each language's text after {record['steps']} steps on the "
        f"`estimate` lines of the language at the left (all weights, AdamW, learning rate {RATE:g}, {ROWS} "
        f"lines a step); below 0 is better. {record['lines']} test lines, one seed. "
        f"{record['cpu_seconds']:.0f} s of processor time.",
        "",
        _matrix(record),
        "",
        _own_and_others(record),
        "",
        *_regression(record),
    ]


def _curves(name: str, record: dict[str, Any]) -> list[str]:
    rows = []
    for row in record["rows"]:
        rows.append(
            {
                "trained on": language(row["language"]).name,
                "steps": row["steps"],
                "seed": row["seed"],
                "itself": spelled(row["own"]),
                "its family": spelled(row["family"]) if "family" in row else "–",
                "all others": spelled(row["others"]),
                "forgotten": row["forgotten"],
                "gained": row["gained"],
            }
        )
    return [
        f"## {name}: forgetting",
        "",
        f"Change of bits per byte by the number of steps; *forgotten* and *gained* are of the other "
        f"languages, those that change at p below .05 after Holm's correction. {record['lines']} test "
        f"lines. {record['cpu_seconds']:.0f} s of processor time.",
        "",
        markdown(pd.DataFrame(rows)),
    ]


def _abilities(name: str, record: dict[str, Any]) -> list[str]:
    overall = pd.DataFrame(record["overall"])
    frame = pd.DataFrame({"edit": list(dict.fromkeys(overall["edit"]))})
    for task in dict.fromkeys(overall["task"]):
        part = overall[overall["task"] == task].set_index("edit")
        first = part.iloc[0]
        frame[f"{task} (chance {first['chance']:.2f}, n {int(first['n'])})"] = [
            spelled(part.loc[edit, "correct"]) for edit in frame["edit"]
        ]
    table = pd.DataFrame(record["table"])
    clear = table[table["p_holm"] < 0.05]
    changed = [
        f"{row['edit']}: {row['task']} in {language(row['language']).name} {row['change']:+.2f}"
        for row in clear.to_dict("records")
    ]
    mixed = pd.DataFrame(record["mixed"])
    mixed["correct"] = [spelled(value) for value in mixed["correct"]]
    mixed["chance"] = [f"{value:.2f}" for value in mixed["chance"]]
    return [
        f"## {name}: abilities before and under an edit",
        "",
        f"Small tasks in 8 languages (`sl.effects.abilities`): the share of questions whose right choice "
        f"is the likeliest. `to de` adds DiffMean from English to German at layer {record['layer']} with one "
        f"natural gap; *random* is a random edit of the same dose. {record['cpu_seconds']:.0f} s of processor "
        "time.",
        "",
        markdown(frame),
        "",
        f"Of {len(table)} changes by edit, task and language, {len(clear)} have p below .05 after Holm's "
        f"correction within the edit{': ' + '; '.join(changed[:12]) if changed else ''}.",
        "",
        "Instruction, question and answer in three languages:",
        "",
        markdown(mixed),
    ]


SECTIONS = {
    "removal": _removal,
    "levelled": _levelled,
    "tuned": _tuned,
    "curves": _curves,
    "abilities": _abilities,
}

if __name__ == "__main__":
    main()
