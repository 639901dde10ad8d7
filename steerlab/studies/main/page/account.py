"""What was run: command, model, corpus, time, memory and token counts, choices, and the
manifest."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from steerlab.figures.style import readable
from steerlab.studies.html.formats import DASH

_HASH_LENGTH = 32
_MINUTE = 60


@dataclass(frozen=True)
class Fact:
    """A line of a list of facts; a hash is set in letters of one width."""

    label: str
    text: str
    is_hash: bool


@dataclass(frozen=True)
class Choices:
    """What was chosen on dev: a row for each method, a column for each thing that is chosen."""

    columns: list[str]
    rows: list[tuple[str, list[str]]]


@dataclass(frozen=True)
class Account:
    """The section on what was run. `choices` are a table, or a list of facts where they have
    another form."""

    command: str
    facts: list[Fact]
    choices: Choices | None
    other_choices: list[Fact]
    dropped: list[Fact]
    manifest: list[Fact]


def describe_run(
    summary: Mapping[str, Any], manifest: Mapping[str, Any], rows: pd.DataFrame
) -> Account:
    """The account of a run; the manifest is there whole, for everything in it decides a number."""
    choices = summary.get("choices")
    choices = choices if isinstance(choices, Mapping) else {}
    regular = bool(choices) and all(isinstance(value, Mapping) for value in choices.values())
    return Account(
        command=_command(manifest.get("command")),
        facts=_facts(_run(summary, rows) | {"new tokens at most": manifest.get("new_tokens")}),
        choices=_choices(choices) if regular else None,
        other_choices=[] if regular else _facts(choices),
        dropped=_facts(_dropped(summary)),
        manifest=_facts({key: value for key, value in manifest.items() if key != "command"}),
    )


def _command(words: Any) -> str:
    """The command as it is typed."""
    if isinstance(words, list):
        return shlex.join(map(str, words))
    return str(words or "(the manifest names no command)")


def _run(summary: Mapping[str, Any], rows: pd.DataFrame) -> dict[str, Any]:
    """What was read, how long it took and how much was generated, by label."""
    facts: dict[str, Any] = {
        key: summary.get(key) for key in ("model", "corpus", "prompt", "source", "targets")
    }
    facts["test sentences"] = summary.get("n_sentences")
    facts["outputs for each method"] = summary.get("n_outputs")
    facts["time"] = _duration(summary.get("seconds"))
    facts["processor time"] = _duration(summary.get("processor_seconds"))
    facts["peak memory"] = _gigabytes(summary.get("peak_rss_bytes"))
    facts["generated tokens"] = _tokens(rows)
    for split, part in rows.groupby("split"):
        facts[f"generated tokens, {split}"] = _tokens(part)
    for key, value in _flat(summary.get("counts") or {}).items():
        if key not in ("outputs", "generated tokens"):  # counted from the rows, above
            facts[f"count of {key}"] = value
    return facts


def _tokens(rows: pd.DataFrame) -> str:
    return f"{int(rows['tokens'].sum()):,} in {len(rows):,} outputs"


def _dropped(summary: Mapping[str, Any]) -> dict[str, str]:
    """How far each setting went that a race dropped, and its score there."""
    dropped = {}
    for row in (summary.get("race") or {}).get("not read whole", []):
        score = f"joint {row['joint']:.2f}"
        if row["low"] is not None:  # a single line has no interval
            score += f" [{row['low']:.2f}, {row['high']:.2f}]"
        name = f"{readable(row['method'])}, layer {row['layer']}, strength {row['strength']:g}"
        dropped[name] = f"{row['lines']} of {row['of']} dev lines; {score}"
    return dropped


def _choices(choices: Mapping[str, Mapping[str, Any]]) -> Choices:
    columns = list(dict.fromkeys(key for choice in choices.values() for key in choice))
    rows = [
        (readable(name), [_plain(choice.get(column)) for column in columns])
        for name, choice in choices.items()
    ]
    return Choices([_spaced(column) for column in columns], rows)


def _facts(mapping: Mapping[str, Any]) -> list[Fact]:
    """Nested keys and their values, a line each."""
    facts = []
    for key, value in _flat(mapping).items():
        text = _plain(value)
        facts.append(Fact(_spaced(key), text, len(text) >= _HASH_LENGTH and " " not in text))
    return facts


def _flat(mapping: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in mapping.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{before}{key}.")
        else:
            flat[f"{before}{key}"] = value
    return flat


def _spaced(key: str) -> str:
    return key.replace("_", " ")


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    if value is None:
        return DASH
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _duration(seconds: Any) -> str | None:
    if not isinstance(seconds, int | float):
        return None
    if seconds < 2 * _MINUTE:
        return f"{seconds:.0f} s"
    return f"{seconds / _MINUTE:.1f} minutes ({seconds:.0f} s)"


def _gigabytes(size: Any) -> str | None:
    return f"{size / 1e9:.2f} GB" if isinstance(size, int | float) else None
