"""The experiment on experts: the mixture begins as polyglot itself, trains, and goes on where it
was cut off; the page holds what was measured."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "experiments" / "experts"))

import routing_report
import upcycle

from steerlab.core.corpus import corpus
from steerlab.models.model import Model

IDS = torch.tensor([[1, 50, 60, 70, 80, 90]])


@torch.inference_mode()
def logits(hf: Any) -> torch.Tensor:
    return hf(IDS).logits


def test_copies_without_noise_say_what_polyglot_says(polyglot: Model) -> None:
    """Whatever the routers say, as the weights of the two experts sum to 1."""
    exact = upcycle.upcycled(noise=0.0)
    torch.testing.assert_close(logits(exact), logits(polyglot.hf), atol=1e-4, rtol=1e-4)
    noisy = logits(upcycle.upcycled())
    assert 1e-3 < float((noisy - logits(polyglot.hf)).abs().max()) < 5
    assert exact.config.num_local_experts == upcycle.EXPERTS


def test_it_trains_goes_on_and_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upcycle, "surprise", lambda hf, tokenizer: 1.0)
    given = argparse.Namespace(
        out=tmp_path, minutes=1, steps=2, text=None, seed=0, rows=4, device="cpu"
    )
    upcycle.train(given)
    given.steps = 3
    upcycle.train(given)
    points = [json.loads(line) for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
    assert [point["step"] for point in points] == [2, 3]
    assert all(point["balance"] > 1 for point in points), "2 where every expert has as many"
    few = corpus().select(["en", "de", "nl", "es"])
    short = {name: few.split(name).take(6) for name in ("estimate", "test")}
    monkeypatch.setattr(type(few), "split", lambda _, name: short[name])
    monkeypatch.setattr(routing_report, "LINES", 2)
    page = tmp_path / "experts.md"
    monkeypatch.setattr(sys, "argv", ["", "--work", str(tmp_path), "--page", str(page)])
    routing_report.main()
    text = page.read_text("utf-8")
    assert "trained on for 3 steps" in text
    assert text.count("Texts are routed further from their translations in en") == 2
    assert text.count("| 7 |") >= 4, "a line for each of polyglot's layers"
    assert "6 parallel texts in 4 languages" in text
