"""A sweep over layers, targets and strengths: every contender on the same cells, in turns, each
a process."""

import math
import random
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from environments import NotMeasured, python_of
from measures import ratio, spread
from shared import MODELS, NEW_TOKENS, PROMPTS, STRENGTHS, TARGETS, Material, material
from workers import Worker

from steerlab.models.loading import PACKAGED

OURS, REFERENCE = "steerlab", "hooks"


@dataclass(frozen=True)
class Contender:
    """Who takes part: `rows` are the numbers of rows a call that are tried; `bos`: it cannot but
    steer BOS as well."""

    worker: str
    label: str
    how: str
    rows: tuple[int, ...] = (1, PROMPTS)
    environment: str | None = None
    bos: bool = False
    alone: bool = True  # one cell a call


CONTENDERS = (
    Contender(
        OURS,
        "steerlab",
        "`generate` with a `stack` of one edit a row, the whole grid in one call",
        (0,),
        alone=False,
    ),
    Contender(
        REFERENCE, "(a) Hugging Face", "a loop over cells: `generate` under a plain forward hook"
    ),
    Contender(
        "steering-vectors",
        "(b) steering-vectors",
        "a loop over cells: `with SteeringVector({layer: vector}).apply(model)` around `generate`; "
        "it adds the vector "
        "to BOS too (with a cache, `generate` and left padding it takes no other positions)",
        environment="steering-vectors",
        bos=True,
    ),
    Contender(
        "nnsight",
        "(c) nnsight",
        "a loop over cells: `with model.generate()`, an in-place edit of the block's output in "
        "`tracer.iter`",
        environment="nnsight",
    ),
    Contender(
        "nnsight",
        "(c) nnsight, many invokes",
        "the same with one `tracer.invoke` for each cell, many cells in one call",
        rows=(64, 256),
        environment="nnsight",
        alone=False,
    ),
    Contender(
        "hooked-transformer",
        "(d) HookedTransformer",
        "a loop over cells: `generate` inside `model.hooks(fwd_hooks=...)`, raw weights",
    ),
    Contender(
        "repeng",
        "(e) repeng",
        "a loop over cells: `ControlModel(model, [layer])`, `set_control`, `generate`, `unwrap`; "
        "it adds the vector to "
        "BOS too",
        environment="repeng",
        bos=True,
    ),
)


@dataclass(frozen=True)
class Plan:
    """How much is run: cells of each peer a round, and of these with natural ends; ours in one
    call, None for all."""

    rounds: int
    cells: int
    natural: int
    rows: tuple[int, ...]  # numbers of rows a call that are tried
    ours: int | None = None


PLANS = {
    "polyglot": Plan(rounds=3, cells=32, natural=8, rows=(0, 1, PROMPTS, 64, 256)),
    "random150": Plan(rounds=2, cells=4, natural=0, rows=(0, PROMPTS, 64), ours=192),
}
QUICK = {"polyglot": Plan(rounds=2, cells=4, natural=2, rows=(0, PROMPTS, 64), ours=96)}
AIMS = {False: "3.5", True: "5"}  # of the best peer's time over ours, by natural ends
ALIKE = 8  # cells on which a peer that steers BOS is compared with a reference that does so too


@dataclass
class Entry:
    """What one contender has done so far: seconds a cell by round, and its texts by (natural,
    cell)."""

    contender: Contender
    worker: Worker
    tried: dict[int, float] = field(default_factory=dict)
    rows: int = PROMPTS
    seconds: dict[bool, list[float]] = field(default_factory=lambda: {False: [], True: []})
    texts: dict[tuple[bool, int], list[str]] = field(default_factory=dict)
    error: str | None = None

    def run(self, cells: list[int], tokenizer: Any, *, rows: int, natural: bool = False) -> float:
        """Seconds a cell; the texts are kept."""
        made = self.worker.run(cells, rows=rows, natural=natural)
        texts = made.get("texts") or tokenizer.batch_decode(
            made["tokens"], skip_special_tokens=True
        )
        for i, cell in enumerate(cells):
            self.texts[natural, cell] = texts[i * PROMPTS : (i + 1) * PROMPTS]
        return float(made["seconds"]) / len(cells)


def measure(*, quick: bool) -> dict[str, Any]:
    plans = QUICK if quick else PLANS
    tables, notes, failures = [], list(_notes()), []
    for name in MODELS:
        if name in plans:
            table, more, failed = _compare(name, plans[name], make=not quick)
            tables.append(table)
            notes += more
            failures += failed
    return {"tables": tables, "notes": notes, "failures": failures}


def _notes() -> Iterable[str]:
    yield (
        f"A cell is one layer, target and strength on {PROMPTS} prompts of {NEW_TOKENS} new "
        "tokens, greedy, float32: "
        f"8 layers x {len(TARGETS)} targets x {len(STRENGTHS)} strengths. The vector is added to "
        "the output of a block "
        "at every position but BOS and padding. Equal work: no row ends early. Best setting: a row "
        "ends with its line "
        "(and leaves the batch, where a contender does that). Vectors and prompts come from one "
        "file."
    )
    for contender in CONTENDERS:
        yield f"{contender.label}: {contender.how}."


def _compare(name: str, plan: Plan, *, make: bool) -> tuple[dict[str, Any], list[str], list[str]]:
    """The table of one model, notes, and what failed."""
    from transformers import AutoTokenizer

    files, tokenizer = material(name), AutoTokenizer.from_pretrained(PACKAGED)
    entries, missing, failures = _start(name, files, make=make)
    try:
        draw = random.Random(0)
        order = draw.sample(range(files.cells), files.cells)
        for entry in entries:
            _guarded(entry, _choose_rows, plan, order, tokenizer)
        for turn in range(plan.rounds):
            for entry in draw.sample(entries, len(entries)):
                _guarded(entry, _turn, plan, order, turn, tokenizer)
            _say(name, turn, entries)
        alike = _alike(entries, order[:ALIKE], tokenizer)
    finally:
        for entry in entries:
            entry.worker.close()
    failures += [
        f"{entry.contender.label}, {name}: {entry.error}" for entry in entries if entry.error
    ]
    sound = [entry for entry in entries if not entry.error]
    each = f"steerlab {plan.ours or 'all'}, every peer {plan.cells} drawn at random"
    title = f"{name}: {files.cells} cells; in each of {plan.rounds} rounds {each}"
    notes = [f"{name}: {label} was not measured: {why}" for label, why in missing.items()]
    return {"title": title, "rows": _rows(sound, alike)}, notes, failures


def _start(
    name: str, files: Material, *, make: bool
) -> tuple[list[Entry], dict[str, str], list[str]]:
    entries: list[Entry] = []
    workers: dict[str, Worker] = {}
    missing: dict[str, str] = {}
    failures: list[str] = []
    for contender in CONTENDERS:
        try:
            python = Path(sys.executable)
            if contender.environment:
                python = python_of(contender.environment, make=make)
            if contender.worker not in workers:
                workers[contender.worker] = Worker(contender.worker, python, files.file)
            entries.append(Entry(contender, workers[contender.worker]))
        except NotMeasured as error:
            missing[contender.label] = str(error)
        except RuntimeError as error:
            failures.append(f"{contender.label}, {name}: {error}")
    return entries, missing, failures


def _guarded(entry: Entry, action: Callable[..., None], *given: Any) -> None:
    """A contender that breaks is left out from then on, and its error is told."""
    if entry.error is None:
        try:
            action(entry, *given)
        except RuntimeError as error:
            entry.error = str(error)


def _choose_rows(entry: Entry, plan: Plan, order: Sequence[int], tokenizer: Any) -> None:
    """Warm up, then try each number of rows a call on a few cells: the fastest is used."""
    entry.run(list(order[:1]), tokenizer, rows=PROMPTS)
    for rows in entry.contender.rows:
        if rows in plan.rows:
            entry.tried[rows] = entry.run(
                list(order[: max(2, rows // PROMPTS)]), tokenizer, rows=rows
            )
    entry.rows = min(entry.tried, key=lambda rows: entry.tried[rows])


def _turn(entry: Entry, plan: Plan, order: Sequence[int], turn: int, tokenizer: Any) -> None:
    """One contender's share of a round, with equal work and then with natural ends."""
    for natural, count in ((False, plan.cells), (True, plan.natural)):
        if count:
            call = max(
                1, entry.rows // PROMPTS
            )  # cells that go through the model together: no call is half empty
            size = call * math.ceil(count / call)
            if entry.contender.worker == OURS:
                size = plan.ours or len(order)
            cells = part_of(order, turn, size)
            entry.seconds[natural].append(
                entry.run(cells, tokenizer, rows=entry.rows, natural=natural)
            )


def part_of(order: Sequence[int], turn: int, size: int) -> list[int]:
    """The turn's part of the cells in their random order, from the start again at the end."""
    start = turn * size % len(order)
    return [*order[start:], *order[:start]][:size]


def _alike(
    entries: Sequence[Entry], cells: Sequence[int], tokenizer: Any
) -> dict[tuple[bool, int], list[str]]:
    """What the reference says to a few cells when it steers BOS too."""
    for entry in entries:
        if entry.contender.worker == REFERENCE and not entry.error:
            made = entry.worker.run(list(cells), bos=True)
            texts = tokenizer.batch_decode(made["tokens"], skip_special_tokens=True)
            return {
                (False, cell): texts[i * PROMPTS : (i + 1) * PROMPTS]
                for i, cell in enumerate(cells)
            }
    return {}


def agreement(made: dict[Any, list[str]], expected: dict[Any, list[str]]) -> tuple[int, int]:
    """(rows that are the same, rows compared) over the cells that both have."""
    shared = made.keys() & expected.keys()
    same = sum(a == b for key in shared for a, b in zip(made[key], expected[key], strict=True))
    return same, sum(len(expected[key]) for key in shared)


def _rows(
    entries: Sequence[Entry], alike: dict[tuple[bool, int], list[str]]
) -> list[dict[str, Any]]:
    by_name = {entry.contender.worker: entry for entry in entries}
    if OURS not in by_name:
        return []
    ours = by_name[OURS]
    reference = by_name[REFERENCE].texts if REFERENCE in by_name else {}
    peers = [entry for entry in entries if entry is not ours]
    rows = [_row(entry, ours, alike if entry.contender.bos else reference) for entry in entries]
    alone = [entry for entry in peers if entry.contender.alone]
    return [
        *rows,
        *_best("the best peer", peers, ours),
        *_best("the best with one cell a call", alone, ours),
    ]


def _best(label: str, peers: Sequence[Entry], ours: Entry) -> list[dict[str, Any]]:
    """A row of the least time of all peers in each round."""
    row: dict[str, Any] = {"contender": f"**{label}**"}
    for natural, aim in AIMS.items():
        if peers and ours.seconds[natural]:
            least = [
                min(times) for times in zip(*(peer.seconds[natural] for peer in peers), strict=True)
            ]
            row |= _columns(natural, least, ours.seconds[natural], aim=aim)
    return [row] if peers else []


def _row(entry: Entry, ours: Entry, expected: dict[tuple[bool, int], list[str]]) -> dict[str, Any]:
    tried = ", ".join(f"{rows}: {seconds:.2f}" for rows, seconds in entry.tried.items())
    row: dict[str, Any] = {
        "contender": entry.contender.label,
        "version": ", ".join(
            f"{k} {v}" for k, v in entry.worker.versions.items() if k not in ("torch", "python")
        ),
        "rows a call (tried: s a cell)": "all" if entry is ours else f"{entry.rows} ({tried})",
    }
    for natural in (False, True):
        if entry.seconds[natural]:
            row |= _columns(natural, entry.seconds[natural], ours.seconds[natural], aim="")
    same, number = agreement(entry.texts, expected)
    beside = "(a) steering BOS too" if entry.contender.bos else "(a)"
    return row | {"same rows": f"{same} of {number}, {beside}" if number else ""}


def _columns(
    natural: bool,  # noqa: FBT001
    seconds: Sequence[float],
    ours: Sequence[float],
    *,
    aim: str,
) -> dict[str, Any]:
    kind = "best setting" if natural else "equal work"
    return {
        f"{kind}: s a cell": spread(seconds),
        f"{kind}: times steerlab's": ratio(seconds, ours),
        f"{kind}: aim": aim,
    }


def _say(name: str, turn: int, entries: Sequence[Entry]) -> None:
    told = ", ".join(
        f"{e.contender.label} {e.seconds[False][-1]:.3f}" for e in entries if e.seconds[False]
    )
    print(f"{name}, round {turn + 1}, s a cell: {told}", file=sys.stderr)
