"""A finished run folder as one self-contained page: the answer, tables, figures, samples, what was run."""

import json
import os
import shlex
from collections.abc import Mapping
from html import escape
from importlib.metadata import version
from pathlib import Path
from string import Template
from typing import Any

import pandas as pd
from plotly.offline import get_plotlyjs

from steerlab.figures.style import CONTROLS, readable
from steerlab.terms import LANGUAGES, SteerlabError

FORMAT = 1
JOINT_FLOOR, LFS_FLOOR = 0.05, 0.5  # what the paired differences must exceed, said before the run
_DATA = Path(__file__).parent / "data"
_SEED, _SAMPLES = 0, 5
_SCORES = {"joint": "Joint", "lfs": "LFS", "relevance": "Relevance", "score": "S", "bits_per_byte_ratio": "Bits per byte ratio"}
_FIGURES = ("heatmap", "dose_curves", "separation", "families", "dendrogram", "cosines")
_COLUMNS = ("method", "layer", "strength", "split", "target", "prompt", "output", "language", "in_language", "joint", "tokens")


def write_report(folder: Path) -> Path:
    """Read a run folder and write `report.html` there; the page appears whole or not at all.

    Reads summary.json, manifest.json, rows.parquet and figures/*.json (plotly figures; `layout.meta` may hold "title"
    and "caption"). Raises `SteerlabError` where one of the first three is missing, broken or of another format.
    """
    folder = Path(folder)
    summary, manifest, rows = _read(folder)
    model = escape(str(summary["model"]))
    page = Template((_DATA / "report.html").read_text(encoding="utf-8")).substitute(
        title=f"Steering the language of {model}",
        question="Does the direction make it speak the language, and still say the same?",
        byline=_byline(summary),
        answer=_answer(summary),
        headline=_headline(summary),
        differences=_differences(summary),
        families=_families(summary),
        figures=_figures(folder / "figures"),
        samples=_samples(summary, rows),
        account=_account(summary, manifest, rows),
        chance=_number(summary.get("chance")),
        css=(_DATA / "report.css").read_text(encoding="utf-8"),
        plotly=get_plotlyjs(),
        version=escape(version("steerlab")),
    )
    file, fresh = folder / "report.html", folder / "report.html.new"
    fresh.write_text(page, encoding="utf-8")
    os.replace(fresh, file)
    return file


# ----------------------------------------------------------------------------------------------------------- reading


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Any], pd.DataFrame]:
    summary, manifest = _json(folder / "summary.json"), _json(folder / "manifest.json")
    if summary.get("format") != FORMAT:
        raise SteerlabError(
            f"{folder / 'summary.json'} has format {summary.get('format')!r}; this version reads {FORMAT}: run again"
        )
    if missing := [key for key in ("model", "source", "targets", "results") if key not in summary]:
        raise SteerlabError(f"{folder / 'summary.json'} lacks {', '.join(missing)}; run `steerlab run` to its end")
    file = folder / "rows.parquet"
    try:
        rows = pd.read_parquet(file)
    except FileNotFoundError as error:
        raise SteerlabError(f"there is no {file}; a report needs a finished run: run `steerlab run` to its end") from error
    except (OSError, ValueError) as error:
        raise SteerlabError(f"{file} is truncated or no parquet file ({error}); run again") from error
    if missing := [column for column in _COLUMNS if column not in rows.columns]:
        raise SteerlabError(f"{file} lacks the columns {', '.join(missing)}; it was written by something else: run again")
    return summary, manifest, rows


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SteerlabError(
            f"there is no {file}; a report needs a finished run: run `steerlab run` to its end"
        ) from error
    except ValueError as error:
        raise SteerlabError(f"{file} is no valid JSON ({error}); run again") from error
    if not isinstance(content, dict):
        raise SteerlabError(f"{file} holds no JSON object; run again")
    return content


# ------------------------------------------------------------------------------------------------------------ values


def _triple(value: Any) -> tuple[float, float, float] | None:
    """A value with its interval; a bare number is its own interval, anything else is nothing."""
    if isinstance(value, int | float) and value == value:
        return float(value), float(value), float(value)
    if isinstance(value, list | tuple) and len(value) == 3 and all(_triple(part) for part in value):
        return float(value[0]), float(value[1]), float(value[2])
    return None


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, int | float) and value == value else "–"


def _cell(value: Any, *, best: bool = False) -> str:
    """A table cell: two decimals, the interval below."""
    triple = _triple(value)
    if triple is None:
        return '<td class="number">–</td>'
    mean, low, high = triple
    interval = f"<small>[{low:.2f}, {high:.2f}]</small>" if low != high else ""
    return f'<td class="number{" best" if best else ""}">{mean:.2f}{interval}</td>'


def _share(value: Any) -> str:
    """A share in running text: percent, the interval in brackets."""
    triple = _triple(value)
    if triple is None:
        return "an unknown share"
    mean, low, high = (100 * part for part in triple)
    return f"{mean:.0f} %" + (f" [{low:.0f}, {high:.0f}]" if low != high else "")


def _how(result: Mapping[str, Any]) -> str:
    """Operator, layer and strength of a result, those that apply."""
    if not result.get("operator") or result["operator"] == "none":
        return ""
    strength = result.get("strength")
    unit = " of the angle" if result["operator"] == "rotate" else " gaps"
    parts = [str(result["operator"]), f"layer {result.get('layer')}"]
    return escape(", ".join(parts + ([f"{strength:g}{unit}"] if isinstance(strength, int | float) else [])))


def _named(iso: str) -> str:
    return LANGUAGES[iso].name if iso in LANGUAGES else ("no language" if iso == "none" else iso)


def _methods(summary: Mapping[str, Any]) -> list[str]:
    return [name for name in summary["results"] if name not in CONTROLS]


def _controls(summary: Mapping[str, Any]) -> list[str]:
    return [name for name in CONTROLS if name in summary["results"]]


def _main(summary: Mapping[str, Any]) -> str | None:
    """The method that the answer is about: DiffMean, or the best by joint where DiffMean was not run."""
    methods = [name for name in _methods(summary) if _triple(summary["results"][name].get("joint"))]
    return "diffmean" if "diffmean" in methods else max(methods, key=lambda name: _joint(summary, name), default=None)


def _joint(summary: Mapping[str, Any], name: str) -> float:
    triple = _triple(summary["results"][name].get("joint"))
    return triple[0] if triple else -1.0


# ------------------------------------------------------------------------------------------------------------- words


def _byline(summary: Mapping[str, Any]) -> str:
    targets = ", ".join(_named(iso) for iso in summary["targets"])
    return escape(
        f"Corpus {summary.get('corpus', '?')} · {summary.get('n_sentences', '?')} test sentences, from "
        f"{_named(summary['source'])} to {len(summary['targets'])} languages ({targets}) · "
        f"prompt form “{summary.get('prompt', '?')}”"
    )


def _answer(summary: Mapping[str, Any]) -> str:
    name = _main(summary)
    if name is None:
        return "<p>This run holds no result of any method, so there is nothing to answer.</p>"
    results = summary["results"]
    result = results[name]
    said = [
        f"<span class='verdict'>{_verdict(summary)}</span>",
        f"Steered by {escape(readable(name))} ({_how(result)}), {escape(str(summary['model']))} writes in the asked "
        f"language in {_share(result.get('lfs'))} of its outputs, and in {_share(result.get('joint'))} it does so "
        f"<em>and</em> says what it was given to say (chance of the right reference: {_share(summary.get('chance'))}).",
    ]
    nulls = [control for control in _controls(summary) if control != "prompt" and _joint(summary, control) >= 0]
    if nulls:
        strongest = max(nulls, key=lambda control: _joint(summary, control))
        said.append(f"The strongest control, {escape(readable(strongest).lower())}, reaches {_share(results[strongest]['joint'])}.")
    if _joint(summary, "prompt") >= 0 if "prompt" in results else False:
        said.append(
            f"Asked for the language in the prompt instead, it reaches {_share(results['prompt']['joint'])} "
            f"({_share(results['prompt'].get('lfs'))} in the language)."
        )
    best = max(_methods(summary), key=lambda method: _joint(summary, method))
    if best != name:
        said.append(f"The best method here is {escape(readable(best))} with {_share(results[best]['joint'])}.")
    return f"<p>{' '.join(said)}</p><p class='note'>Brackets: 95 % intervals by resampling sentences. {_criterion()}</p>"


def _criterion() -> str:
    return (
        "The criterion, set before the run: over every control but the prompt, the paired difference has a lower bound "
        f"above {JOINT_FLOOR:g} in joint and above {LFS_FLOOR:g} in LFS."
    )


def _verdict(summary: Mapping[str, Any]) -> str:
    """Holds, fails or cannot be told, by the paired differences from every control but the prompt."""
    given = {key: value for key, value in summary.get("differences", {}).items() if key != "prompt"}
    language = _holds([item.get("lfs") for item in given.values()], LFS_FLOOR)
    meaning = _holds([item.get("joint") for item in given.values()], JOINT_FLOOR)
    if language is None and meaning is None:
        return "This run cannot tell."
    if language and meaning:
        return "Yes."
    if language:
        return "The language, yes; the meaning, no." if meaning is False else "The language, yes; the meaning, not shown."
    return "No." if language is False else "Not shown."


def _holds(triples: list[Any], floor: float) -> bool | None:
    """True where every lower bound is above the floor, False where an upper bound is below it, else None."""
    bounds = [triple for value in triples if (triple := _triple(value))]
    if bounds and all(low > floor for _, low, _ in bounds):
        return True
    return False if any(high < floor for _, _, high in bounds) else None


def _families(summary: Mapping[str, Any]) -> str:
    found = summary.get("families") or {}
    if _triple(found.get("nearest_neighbour")) is None:
        return ""
    beside = {
        "unigram_nearest_neighbour": "token unigrams alone",
        "embedding_nearest_neighbour": "the embedding layer",
        "latin_nearest_neighbour": "languages in Latin script among themselves",
    }
    others = [f"{label} {_share(found[key])}" for key, label in beside.items() if _triple(found.get(key))]
    return (
        f"<h3>Families</h3><p>At layer {escape(str(found.get('layer', '?')))}, "
        f"{_share(found['nearest_neighbour'])} of the languages have their nearest neighbour in their own family "
        f"(p = {_number(found.get('p'))}, permuting the family labels, maximum over layers)"
        + (f"; for comparison: {', '.join(others)}" if others else "")
        + f". The tree's cophenetic correlation is {_number(found.get('cophenetic'))}.</p>"
    )


# ------------------------------------------------------------------------------------------------------------ tables


def _headline(summary: Mapping[str, Any]) -> str:
    results, methods = summary["results"], _methods(summary)
    shown = [*methods, *_controls(summary)]
    triples = [triple for name in shown if (triple := _triple(results[name].get("joint")))]
    top = max([0.1, *(high for _, _, high in triples)]) * 1.05
    best = max((_joint(summary, name) for name in methods), default=-1.0)
    lines = []
    for name in shown:
        if name in CONTROLS and (not lines or "group" not in "".join(lines)):
            lines.append('<tr class="group"><th colspan="9" scope="colgroup">Controls</th></tr>')
        lines.append(_result(name, results[name], top, summary.get("chance"), best=_joint(summary, name) == best))
    heads = "".join(f"<th scope='col'>{label}</th>" for label in _SCORES.values() if label != "Joint")
    chance = _number(summary.get("chance"))
    return (
        '<div class="scroll" tabindex="0"><table class="headline"><caption>Scores on the test lines, '
        f"n = {escape(str(summary.get('n_sentences', '?')))} sentences, {escape(str(summary.get('n_outputs', '?')))} "
        "outputs a method</caption><thead><tr><th scope='col'>Method</th><th scope='col' colspan='2'>Joint</th>"
        f"{heads}<th scope='col'>Dose</th><th scope='col'>Chosen on dev</th></tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
        f'<p class="note">Below each value its 95 % interval by resampling sentences. Chance is {chance} for relevance and '
        "at most that for joint (the dotted line). Each control was run at the method's own cell and dose and with its "
        "own choice on dev; the stronger of the two is shown.</p>"
    )


def _result(name: str, result: Mapping[str, Any], top: float, chance: Any, *, best: bool) -> str:
    variant = f"<small>{escape(str(result['variant']))}</small>" if result.get("variant") else ""
    head = f"<th scope='row'>{escape(readable(name))}{variant}</th>"
    if not result:
        return f"<tr>{head}<td colspan='8' class='how'>not run</td></tr>"
    cells = [_cell(result.get("joint"), best=best), f"<td>{_forest(_triple(result.get('joint')), top, chance)}</td>"]
    cells += [_cell(result.get(key)) for key in (*list(_SCORES)[1:], "dose")]
    return f"<tr>{head}{''.join(cells)}<td class='how'>{_how(result)}</td></tr>"


def _forest(triple: tuple[float, float, float] | None, top: float, chance: Any) -> str:
    """A dot with its interval on the scale from 0 to `top`, chance as a dotted line; read with the numbers beside."""
    if triple is None:
        return ""
    mean, low, high = (4 + 142 * min(max(part, 0), top) / top for part in triple)
    dotted = 4 + 142 * chance / top if isinstance(chance, int | float) else -9
    return (
        '<svg class="forest" viewBox="0 0 150 22" aria-hidden="true"><path d="M4 21.5H146" stroke="#d9dfe5"/>'
        f'<path d="M{dotted:.1f} 1V21" stroke="#6b7785" stroke-dasharray="1.5 2.5"/>'
        f'<path d="M{low:.1f} 11H{high:.1f}" stroke="#0b5a8a" stroke-width="2"/>'
        f'<circle cx="{mean:.1f}" cy="11" r="4" fill="#0b5a8a"/></svg>'
    )


def _differences(summary: Mapping[str, Any]) -> str:
    given, name = summary.get("differences"), _main(summary)
    if not given or name is None:
        return ""
    lines = []
    for control in [*(key for key in CONTROLS if key in given), *(key for key in given if key not in CONTROLS)]:
        cells = ""
        for key, floor in (("joint", JOINT_FLOOR), ("lfs", LFS_FLOOR)):
            holds = _holds([given[control].get(key)], floor)
            mark = {True: '<span class="mark yes">✓ above</span>', False: '<span class="mark no">✗ below</span>'}
            cells += f"{_cell(given[control].get(key))}<td>{mark.get(holds, '<span class=mark>? open</span>')}</td>"
        lines.append(f"<tr><th scope='row'>{escape(readable(control))}</th>{cells}</tr>")
    return (
        f'<h3>{escape(readable(name))} less each control, paired by output</h3><div class="scroll" tabindex="0"><table>'
        f"<thead><tr><th scope='col'>Control</th><th scope='col'>Joint</th><th scope='col'>against {JOINT_FLOOR:g}</th>"
        f"<th scope='col'>LFS</th><th scope='col'>against {LFS_FLOOR:g}</th></tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
        '<p class="note">The difference on the same sentences and targets. ✓: the whole interval is above the bound; '
        "✗: the whole interval is below it; ?: the bound lies inside it.</p>"
    )
