"""Amplified edits: the formula of their logits, rows that run twice, and the strength that answers
ask for."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import PROMPTS
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.edits import Edit, add, stack
from steerlab.edits.amplified import Amplification, amplified_logits, kept, moves
from steerlab.engine.amplify import amplify, amplifying_strengths
from steerlab.engine.cross_entropy import cross_entropy
from steerlab.engine.decoding import decode, generate
from steerlab.engine.preferences import preferences


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_move_is_the_gradient_of_the_divergence() -> None:
    edited, plain = randn(3, 7), randn(3, 7, seed=1)
    z = edited.double().requires_grad_(True)
    p = z.log_softmax(-1)
    divergence = (p.exp() * (p - plain.double().log_softmax(-1))).sum()
    (gradient,) = torch.autograd.grad(divergence, z)
    torch.testing.assert_close(moves(edited, plain, "kl"), -gradient.float(), atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(
        moves(edited, plain, "kl").sum(-1), torch.zeros(3), atol=1e-6, rtol=0
    )
    # The larger, further from the plain model: against the gradient the divergence falls.
    nearer = edited + 0.5 * moves(edited, plain, "kl")

    def divergence_of(logits: Tensor) -> Tensor:
        log = logits.log_softmax(-1)
        return (log.exp() * (log - plain.log_softmax(-1))).sum(-1)

    assert (divergence_of(nearer) < divergence_of(edited)).all()


def test_by_hand_with_numpy() -> None:
    edited, plain = randn(2, 9, seed=2) * 2, randn(2, 9, seed=3)
    rules = [Amplification(-1.5, "kl", 0.1), Amplification(2.0, "difference", 0.0)]
    got = amplified_logits(edited, plain, rules).numpy()
    z, w = edited.double().numpy(), plain.double().numpy()
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    q = np.exp(w) / np.exp(w).sum(1, keepdims=True)
    r = np.log(p / q)
    first = z[0] - 1.5 * -p[0] * (r[0] - (p[0] * r[0]).sum())
    first[p[0] < 0.1 * p[0].max()] = -np.inf
    np.testing.assert_allclose(got[0], first, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got[1], z[1] + 2 * r[1], rtol=1e-4, atol=1e-5)
    assert np.isinf(got[0]).any()
    assert np.isfinite(got[1]).all()
    assert kept(edited, 1.0).sum() == 2


def test_an_edit_that_changes_nothing_changes_nothing(polyglot: Any, directions: Any) -> None:
    still = add(directions.between("en", "de").at(3), strength=0.0)
    plain = list(generate(polyglot, PROMPTS, max_new_tokens=12))
    for strength in (-3.0, 3.0):
        edit = amplify(still, strength)
        assert list(generate(polyglot, PROMPTS, edit=edit, max_new_tokens=12)) == plain
    pushed = amplify(add(directions.between("en", "de").at(3)), -3.0)
    assert list(generate(polyglot, PROMPTS, edit=pushed, max_new_tokens=12)) != plain


def test_two_rows_of_one_batch_are_two_runs(polyglot: Any, directions: Any) -> None:
    """Token by token: what is chosen from the logits of two separate runs of what stands there."""
    edit = add(directions.between("en", "de").at(3), strength=0.5)
    other = add(directions.between("en", "es").at(4), strength=0.8)
    rule = Amplification(-4.0)
    rows = [amplify(edit, -4.0), other, amplify(other, -4.0), edit]
    options: Any = {"max_new_tokens": 8, "one_line": False}
    got = decode(polyglot, PROMPTS, edit=stack(rows), **options)
    alone = [
        decode(polyglot, [prompt], edit=each, **options)
        for prompt, each in zip(PROMPTS, rows, strict=True)
    ]
    assert got.texts == [each.texts[0] for each in alone]
    assert got.dose == pytest.approx([each.dose[0] for each in alone], rel=1e-4)
    bare = stack([edit, other, other, edit])
    assert got.texts != decode(polyglot, PROMPTS, edit=bare, **options).texts
    small = decode(polyglot, PROMPTS, edit=stack(rows), batch=2, **options)
    assert small.texts == got.texts
    assert small.plan.rows == 1
    ids = list(polyglot.tokenizer(PROMPTS[0]).input_ids)
    said: list[int] = []
    for _ in range(8):
        tokens = torch.tensor([ids + said])
        with torch.inference_mode():
            plain = polyglot.forward(tokens, torch.ones_like(tokens).bool())[0][:, -1]
            with edit.on(polyglot):
                edited = polyglot.forward(tokens, torch.ones_like(tokens).bool())[0][:, -1]
        said.append(int(amplified_logits(edited, plain, [rule]).argmax()))
    assert polyglot.tokenizer.decode(said, skip_special_tokens=True) == got.texts[0]


def test_the_strength_found_has_the_least_loss(polyglot: Any, directions: Any, lines: Any) -> None:
    edit = add(directions.between("en", "de").at(3), strength=0.5)
    dev = preferences(lines, "en", "de", split="dev").take(6)
    for rule in ("kl", "difference"):
        found = amplifying_strengths(polyglot, edit, dev, rule=rule, mask=0.0)
        assert found.masked == 0
        assert amplify(edit, rule=rule, mask=0.0, model=polyglot, dev=dev).logits == (
            Amplification(found.best, rule, 0.0),
        )
        if rule == "difference":  # z + μ (log p - log q), by another road
            assert found.loss[1] < found.loss[0]
    # At 0 the loss is that of the edited model, which another loop reads.
    texts = [f"{a}{b}" for a, b in zip(dev.prompts(polyglot), dev.chosen, strict=True)]
    ids = [polyglot.tokenizer(text).input_ids for text in texts]
    starts = [polyglot.tokenizer(text).input_ids for text in dev.prompts(polyglot)]
    whole = cross_entropy(polyglot, texts, edit) * torch.tensor([len(each) - 1 for each in ids])
    begin = cross_entropy(polyglot, dev.prompts(polyglot), edit) * torch.tensor(
        [len(each) - 1 for each in starts]
    )
    assert found.loss[0] == pytest.approx(float((whole - begin).sum()) / found.tokens, rel=1e-3)


def test_what_cannot_be_amplified_is_told(
    polyglot: Any, directions: Any, lines: Any, tmp_path: Any
) -> None:
    edit = add(directions.between("en", "de").at(3))
    made = amplify(edit, -1.0)
    assert made.digest != edit.digest
    assert amplify(edit, -1.0) == made != amplify(edit, 1.0)
    with pytest.raises(SteerlabError, match="give a strength, or model="):
        amplify(edit)
    with pytest.raises(SteerlabError, match="the edit has no parts"):
        amplify(Edit(()), 1.0)
    with pytest.raises(SteerlabError, match="rule is 'kld'"):
        amplify(edit, 1.0, rule="kld")
    with pytest.raises(SteerlabError, match="mask is 2"):
        amplify(edit, 1.0, mask=2.0)
    with pytest.raises(SteerlabError, match="strength is nan"):
        amplify(edit, float("nan"))
    for act in (
        lambda: amplify(made, 1.0),
        lambda: made | edit,
        lambda: made.when(lambda h: h[..., 0] > 0),
        lambda: made.save(tmp_path / "edit.safetensors"),
        lambda: made.hooks(polyglot),
        lambda: cross_entropy(polyglot, "One.", made),
        lambda: made.on(polyglot).__enter__(),
    ):
        with pytest.raises(SteerlabError, match="is amplified, which changes logits"):
            act()
    dev = preferences(lines, "en", "de", split="dev").take(2)
    still = replace(edit, parts=add(directions.between("en", "de").at(3), strength=0.0).parts)
    with pytest.raises(SteerlabError, match="changes no logit"):
        amplify(still, model=polyglot, dev=dev)
