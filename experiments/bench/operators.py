"""What each operator costs a token, beside the dense matrix that a public implementation
multiplies by."""

import math
from collections.abc import Callable
from typing import Any

import torch
from measures import interleaved, spread
from torch import Tensor

from steerlab.edits import OPERATORS

WIDTH, TOKENS = 4096, 1024


def measure(*, quick: bool) -> dict[str, Any]:
    random = torch.Generator().manual_seed(0)
    h = torch.randn(1, TOKENS, WIDTH, generator=random)
    first, second = torch.linalg.qr(torch.randn(WIDTH, 2, generator=random)).Q.T.contiguous()
    rows = []
    with torch.inference_mode():
        for operator, (tensors, dense) in forms(first, second).items():
            rows.append(_row(operator, h, tensors, dense, rounds=5 if quick else 15))
    notes = [
        f"h + change(h) on {TOKENS} tokens of width {WIDTH} in float32. Dense: h M with the same "
        "outcome, M made "
        "beforehand (I - f BᵀB; the rotation of the plane). What has a shift, a level, a length or "
        "a mask has no dense "
        "form."
    ]
    return {"tables": [{"title": f"Width {WIDTH}", "rows": rows}], "notes": notes}


def forms(first: Tensor, second: Tensor) -> dict[str, tuple[dict[str, Tensor], Tensor | None]]:
    """Each operator's own tensors, and the d x d matrix M of the same change, h' = h M."""
    angle = torch.tensor([math.radians(40)])
    one = torch.eye(len(first))
    a, b = torch.outer(first, first), torch.outer(second, second)
    both = {name: torch.stack([first, second])[None] for name in ("read", "write")}
    turn = (angle.cos() - 1) * (a + b) + angle.sin() * (
        torch.outer(first, second) - torch.outer(second, first)
    )
    number = lambda value: torch.full((1, 2, 1), value)  # noqa: E731
    reader = {
        "encoder": torch.stack([first, second])[None],
        "bias": number(0.1),
        "threshold": number(0.5),
    }
    neurons = {"shift": first[None], "weight": (second > 0).float()[None]}
    return {
        "add": ({"shift": first[None]}, None),
        "ablate": ({"basis": first[None, None], "fraction": torch.ones(1)}, one - a),
        "rotate": ({"first": first[None], "second": second[None], "angle": angle}, one + turn),
        "affine": ({"unit": first[None], "level": torch.ones(1), "fraction": torch.ones(1)}, None),
        "add_keep_norm": ({"shift": first[None]}, None),
        "turn_to": (
            {
                **{"first": first[None], "second": second[None], "angle": angle},
                **{"fraction": torch.ones(1), "adaptive": torch.zeros(1)},
            },
            None,
        ),
        "slerp": (
            {"unit": first[None], "across": second[None], "share": torch.full((1,), 0.2)},
            None,
        ),
        "spherical": (
            {
                **{"unit": first[None], "across": second[None], "kappa": torch.full((1,), 20.0)},
                **{"strength": torch.full((1,), 0.2), "threshold": torch.full((1,), -0.15)},
            },
            None,
        ),
        "cap": ({"unit": first[None], "level": torch.ones(1), "fraction": torch.ones(1)}, None),
        "push": ({"basis": first[None, None], "step": torch.ones(1)}, None),
        "erase": (
            {**both, "centre": torch.zeros(1, len(first)), "fraction": torch.ones(1)},
            one - a - b,
        ),
        "conceptor": (
            {"half": torch.stack([first, second])[None], "fraction": torch.ones(1)},
            a + b,
        ),
        "overwrite": ({"weight": (first > 0).float()[None], "values": second[None]}, None),
        "neuron_add": (neurons, None),
        "neuron_set": (neurons, None),
        "neuron_zero": (
            {**neurons, "shift": 0 * first[None]},
            torch.diag(1 - neurons["weight"][0]),
        ),
        "scale_units": (
            {"rates": neurons["weight"], "strength": torch.full((1,), 2.0)},
            torch.diag(1 + 2 * neurons["weight"][0]),
        ),
        "write_along": (
            {"reads": first[None], "writes": second[None]},
            one + torch.outer(first, second),
        ),
        "clamp": (
            {**reader, "decoder": both["write"], "goal": number(1.0), "fraction": torch.ones(1)},
            None,
        ),
        "gate": ({**reader, "shift": first[None]}, None),
        "route": (
            {"soft": neurons["weight"], **dict.fromkeys(("on", "off"), 0 * first[None])},
            None,
        ),
        "add_code": ({**reader, "decoder": both["write"], "code": number(1.0)}, None),
        "signed_shift": (
            {**reader, "shift": first[None], "away": second[None], "prototype": number(1.0)},
            None,
        ),
    }


def _row(
    operator: str, h: Tensor, tensors: dict[str, Tensor], dense: Tensor | None, *, rounds: int
) -> dict[str, Any]:
    change = OPERATORS[operator].change
    assert change is not None
    actions: dict[str, Callable[[], Tensor]] = {"own": lambda: h + change(h, tensors, None)}
    if dense is not None:
        matrix = dense
        actions["dense"] = lambda: h @ matrix
    taken = interleaved(actions, rounds=rounds)
    row: dict[str, Any] = {"operator": operator, "µs a token": _each(taken["own"])}
    if dense is not None:
        row |= {
            "dense, µs a token": _each(taken["dense"]),
            "largest difference": float((actions["own"]() - actions["dense"]()).abs().max()),
        }
    return row


def _each(times: list[float]) -> dict[str, float]:
    return spread([1e6 * spent / TOKENS for spent in times])
