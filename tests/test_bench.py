"""The benchmark's own parts: figures, the page made from them, the bound, contenders that agree,
environments."""

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "experiments" / "bench"))

import collecting
import environments
import gpu
import measures
import operators
import profiled
import replay
import report
import sections
import shared
import sweep
import worker
import workers

from steerlab.core.corpus import corpus
from steerlab.edits import OPERATORS

BENCH = Path(sweep.__file__).parent
MACHINE = {
    "cpu": "a CPU",
    "threads": 2,
    "python": "3.11",
    "versions": {"torch": "2"},
    "date": "2026-01-01",
    "others": 0.02,
}
TINY = {
    "vocab_size": 12288,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "tie_word_embeddings": True,
}


def test_spread_and_ratio() -> None:
    assert measures.spread([3.0, 1.0, 8.0]) == {"median": 3.0, "low": 1.0, "high": 8.0, "n": 3}
    # Round by round: a machine that is twice as slow in the second round changes nothing.
    assert measures.ratio([2.0, 4.0], [1.0, 2.0]) == {
        "median": 2.0,
        "low": 2.0,
        "high": 2.0,
        "n": 2,
    }
    with pytest.raises(ValueError, match="shorter"):
        measures.ratio([1.0, 2.0], [1.0])


def test_interleaved_takes_turns() -> None:
    said: list[str] = []
    taken = measures.interleaved(
        {"a": lambda: said.append("a"), "b": lambda: said.append("b")}, rounds=5
    )
    assert [len(times) for times in taken.values()] == [5, 5]
    assert said[:2] == ["a", "b"], "one warm-up each"
    assert all(set(said[i : i + 2]) == {"a", "b"} for i in range(2, 12, 2))
    assert len({"".join(said[i : i + 2]) for i in range(2, 12, 2)}) == 2, "the order changes"


def section(**more: Any) -> dict[str, Any]:
    rows = [
        {"what": "one|two", "s": measures.spread([0.1234, 0.5, 0.2]), "aim": "0.98"},
        {"what": "b", "share": 1234.5},
    ]
    told = {
        "title": "A sweep",
        "machine": MACHINE,
        "seconds": 12.3,
        "tables": [{"title": "T", "rows": rows}],
    }
    return told | {"notes": ["how"]} | more


def test_page_is_made_from_the_file(tmp_path: Path) -> None:
    page = report.write(tmp_path, {"sweep": section()}).read_text("utf-8")
    assert "| what | s | aim | share |" in page
    assert "| one\\|two | 0.200 [0.123, 0.500] | 0.98 |  |" in page
    assert "| b |  |  | 1,234 |" in page
    assert "a CPU, 2 threads" in page
    assert "other processes used 2% of the cores" in page
    assert "- how" in page
    assert (
        report.render(json.loads((tmp_path / "benchmarks.json").read_text("utf-8"))["sections"])
        == page
    )
    assert "quick" not in page


def test_page_tells_what_failed(tmp_path: Path) -> None:
    page = report.write(
        tmp_path, {"sweep": section(error="out of memory", failures=["(b): it ended"], quick=True)}
    )
    told = page.read_text("utf-8")
    assert "**This section failed**: out of memory" in told
    assert "**Failed**: (b): it ended." in told
    assert "a quick run" in told


def test_every_section_opens() -> None:
    for name, found in sections.SECTIONS.items():
        assert callable(getattr(__import__(found.module), "measure", None)), name


@pytest.mark.parametrize(
    ("value", "shown"), [(1.0, "1.00"), (0.01234, "0.0123"), (123.4, "123"), (3, "3"), (0.0, "0.0")]
)
def test_numbers_have_three_digits(value: float, shown: str) -> None:
    assert report.cell(value) == shown


def test_bound_of_replay() -> None:
    # One edit after the last block: replay runs every block once and nothing above it.
    assert replay.bound([3], blocks=4, block=10.0, unembedding=5.0) == pytest.approx(1.0)
    # Many edits there: all of the blocks are shared, only the unembedding is not.
    assert replay.bound([3] * 1000, blocks=4, block=10.0, unembedding=5.0) == pytest.approx(
        9.0, rel=0.01
    )
    # Many edits after the first block: three of the four blocks are run for each.
    assert replay.bound([0] * 1000, blocks=4, block=10.0, unembedding=5.0) == pytest.approx(
        45 / 35, rel=0.01
    )


def test_dense_forms_do_the_same() -> None:
    first, second = torch.linalg.qr(torch.randn(16, 2)).Q.T.contiguous()
    h = torch.randn(1, 5, 16)
    forms = operators.forms(first, second)
    shown = {OPERATORS[name].change for name in forms}
    assert shown == {record.change for record in OPERATORS.values()}, "an operator without a figure"
    for name, (tensors, dense) in forms.items():
        change = OPERATORS[name].change
        if dense is not None and change is not None:
            assert torch.allclose(h + change(h, tensors, None), h @ dense, atol=1e-5), name


def test_operations_by_kind() -> None:
    found = profiled.by_kind(
        {
            "aten::addmm": 2.0,
            "aten::_scaled_dot_product_flash_attention_for_cpu": 1.0,
            "aten::mul": 0.5,
        }
    )
    assert found["matrix products"] == 2.0
    assert found["attention"] == 1.0
    assert found[profiled.REST] == 0.5


def test_corpus_of_a_size(tmp_path: Path) -> None:
    collecting.write_corpus(tmp_path, 1000)
    made = corpus(tmp_path)
    assert sum(map(len, made.lines.values())) == 1000
    assert set(made["en"]) <= set(corpus()["en"])


def test_parts_cover_the_grid() -> None:
    order = list(range(10))
    assert sweep.part_of(order, 0, 4) + sweep.part_of(order, 1, 4) + sweep.part_of(order, 2, 4) == [
        *order,
        0,
        1,
    ]


def test_agreement_counts_rows_of_shared_cells() -> None:
    made = {(False, 1): ["a", "b"], (False, 2): ["c", "d"]}
    assert sweep.agreement(made, {(False, 1): ["a", "x"], (True, 2): ["c", "d"]}) == (1, 2)


def test_environments_are_pinned() -> None:
    for peer, pins in environments.PINS.items():
        assert all("==" in pin for pin in (environments.torch_pin(), *pins)), peer
    asked = {contender.environment for contender in sweep.CONTENDERS} - {None}
    assert asked == set(environments.PINS)
    assert {contender.worker for contender in sweep.CONTENDERS} == set(worker.CONTENDERS)


def test_a_missing_environment_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "BUILD", tmp_path)
    with pytest.raises(environments.NotMeasured, match="not made yet"):
        environments.python_of("repeng", make=False)


@pytest.fixture(scope="module")
def small(tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> shared.Material:
    """The files of the sweep for a tiny Llama of three layers, in a folder of the tests."""
    import steerlab as sl

    folder = tmp_path_factory.mktemp("bench")
    shutil.copytree(
        tiny("llama"), folder / "random"
    )  # HookedTransformer guesses by name: no folder called llama
    model = sl.load(str(folder / "random"))
    made = shared.Material(folder / "random", folder / "random.safetensors", (0, 1, 2))
    prompts = ["No.\n", "The weather is nice today.\n"]
    unit, gap = shared._random_directions(model, made.layers, prompts)
    shared._write(made, model, prompts, unit, gap)
    return made


def test_contenders_agree(small: shared.Material) -> None:
    given = worker.Material(str(small.file))
    cells = [0, 5, 50, small.cells - 1]
    request = {"cells": cells, "rows": 8, "natural": False, "bos": False}
    ours = worker.Steerlab(given)
    texts = ours.run(request)
    for kind in (worker.HuggingFace, worker.Hooked):
        tokens = kind(given).run(request)
        assert ours.model.tokenizer.batch_decode(tokens, skip_special_tokens=True) == texts, kind
        assert {len(row) for row in tokens} == {given.new_tokens}, "equal work"
    steered_bos = worker.HuggingFace(given).run(request | {"bos": True})
    assert ours.model.tokenizer.batch_decode(steered_bos, skip_special_tokens=True) != texts, (
        "the check can fail"
    )


def test_cells_have_places(small: shared.Material) -> None:
    given = worker.Material(str(small.file))
    places = [given.place(cell) for cell in range(small.cells)]
    assert len(set(places)) == small.cells
    layer, target, strength = places[17]
    assert torch.equal(
        given.edit(17)[1],
        given.strengths[strength] * given.gap[layer, target] * given.unit[layer, target],
    )


def test_natural_ends(small: shared.Material) -> None:
    given = worker.Material(str(small.file))
    line_break = int(given.breaks.nonzero()[0])
    word = int((~given.breaks & ~given.blank).nonzero()[0])
    ended = given.line_ends(1)
    rows = torch.tensor([[0, line_break, word], [0, word, line_break], [0, word, word]])
    assert ended(rows, None).tolist() == [False, True, False]


def test_a_worker_answers_and_its_end_is_told(
    small: shared.Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "BUILD", tmp_path)
    with workers.Worker("hooks", Path(sys.executable), small.file) as one:
        answer = one.run([3], rows=1)
        assert answer["seconds"] > 0
        assert [len(row) for row in answer["tokens"]] == [shared.NEW_TOKENS] * 2
        with pytest.raises(RuntimeError, match="the worker of hooks ended: IndexError"):
            one.run([10_000])


def test_gpu_script_runs_on_a_cpu() -> None:
    scale = gpu.Scale(rounds=1, cells=1, targets=1, batches=(2,), side=64, budget=0.0)
    found = gpu.measured({"tiny": TINY}, device="cpu", dtype=torch.float32, scale=scale)
    (swept,), (step,) = (table["rows"] for table in found["tables"])
    assert swept["same rows"] == "16 of 16"
    assert all(
        math.isfinite(step[name]["median"])
        for name in ("steered / unsteered", "steered / Hugging Face")
    )
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="no GPU"):
            gpu.measure(quick=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU the section does not fail")
def test_a_section_that_fails_is_told_and_the_others_stay(tmp_path: Path) -> None:
    report.write(tmp_path, {"sweep": section()})
    command = [
        sys.executable,
        str(BENCH),
        "--only",
        "gpu",
        "--out",
        str(tmp_path),
        "--threads",
        "1",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "failed: gpu: RuntimeError: there is no GPU here" in done.stderr
    found = report.read(tmp_path)
    assert list(found) == ["sweep", "gpu"]
    assert found["sweep"] == section()
    assert found["gpu"]["error"].startswith("RuntimeError: there is no GPU here")


def test_unknown_sections_are_refused() -> None:
    done = subprocess.run(
        [sys.executable, str(BENCH), "--only", "sweeps"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "there is no section 'sweeps'" in done.stderr
