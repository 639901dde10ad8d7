"""A user's own function is an edit like any other: it composes, stacks, pickles, and its digest is
of what it does."""

import functools
import pickle
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from edits_by_hand import WIDTH, Fake, alone, at_site, direction, randn, same_bits, steer, where
from torch import Tensor

from steerlab.core.corpus import Corpus
from steerlab.core.errors import SteerlabError
from steerlab.edits import Edit, ablate, add, neuron_add, neuron_set, stack
from steerlab.edits.digest import function_digest
from steerlab.edits.edit import edit
from steerlab.engine.cross_entropy import cross_entropy
from steerlab.engine.decoding import generate
from steerlab.models.model import Model

SCALE = 0.5
VECTOR = randn(WIDTH, seed=7)


def halve(h: Tensor) -> Tensor:
    return -SCALE * h


def mix(h: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
    """Every kind of tensor: a number, a vector and a matrix."""
    return tensors["size"] * torch.tanh(h @ tensors["matrix"] + tensors["vector"])


def lift_generated(h: Tensor, tensors: Mapping[str, Tensor], positions: Any) -> Tensor:
    return positions.generated[..., None] * tensors["vector"]


def mixed(seed: int, size: float = 1.0, width: int = WIDTH) -> dict[str, Tensor | float]:
    matrix = randn(width, width, seed=seed) / width**0.5
    return {"size": size, "vector": randn(width, seed=seed + 1), "matrix": matrix}


def of_two(seed: int) -> Edit:
    return edit(mix, layer=2, tensors=mixed(seed))


# What it does


def test_what_a_function_returns_is_added() -> None:
    h = randn(2, 3, WIDTH)
    torch.testing.assert_close(at_site(edit(halve, layer=2), h), h / 2)
    torch.testing.assert_close(at_site(edit(lambda h: VECTOR, layer=2), h), h + VECTOR)
    numbers = mixed(3, 0.3)
    expected = h + 0.3 * torch.tanh(h @ numbers["matrix"] + numbers["vector"])
    torch.testing.assert_close(at_site(edit(mix, layer=2, tensors=numbers), h), expected)
    assert not torch.allclose(expected, h, atol=0.1)


def test_an_own_addition_is_the_packages_own() -> None:
    """Bit for bit, with its dose, whatever the positions; another vector is another edit."""
    step, h = direction(), randn(3, 6, WIDTH)
    vector = (step.gap * step.unit[0]).float()
    for positions in ("all", "prompt"):
        ours = add(step, positions=positions)
        mine = edit(
            lambda h, tensors: tensors["vector"],
            layer=2,
            tensors={"vector": vector},
            positions=positions,
        )
        assert same_bits(steer(mine, h), steer(ours, h))
        with mine.on(fake := Fake()) as own, ours.on(other := Fake()) as packaged:
            fake(h, where(3, 6)), other(h, where(3, 6))
        assert torch.equal(own.doses(3), packaged.doses(3))
        assert own.prefill == packaged.prefill
    twice = edit(lambda h: 2 * vector, layer=2)
    assert not torch.allclose(steer(twice, h), steer(ours, h))


def test_it_composes_with_others_and_stands_at_several_layers() -> None:
    h = randn(2, 5, WIDTH)
    both = edit(halve, layers=[1, 3]) | ablate(direction())
    assert [(part.layer, part.operator) for part in both.parts] == [
        (1, "halve"),
        (3, "halve"),
        (2, "ablate"),
    ]
    one_by_one = edit(halve, layer=1) | ablate(direction()) | edit(halve, layer=3)
    assert same_bits(steer(both, h), steer(one_by_one, h))
    assert not torch.allclose(steer(both, h), steer(edit(halve, layer=1), h))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_with_identity_not_one_bit_moves(dtype: torch.dtype) -> None:
    h = randn(2, 5, WIDTH).to(dtype)
    nothing = edit(lambda h: 0.1 * h, layer=2, identity=True)
    assert same_bits(steer(nothing, h), Fake()(h, where(2, 5)))
    something = edit(lambda h: 0.1 * h, layer=2)
    assert not same_bits(steer(something, h), Fake()(h, where(2, 5)))


def test_positions_are_those_of_the_rows_that_it_edits() -> None:
    tensors = {"vector": VECTOR}
    lifted = edit(lift_generated, layer=2, tensors=tensors)
    plain = edit(lambda h: VECTOR, layer=2, positions="generated")
    rows = [Edit(()), lifted, Edit(()), lifted | edit(halve, layer=2)]
    h, place = randn(4, 6, WIDTH), where(4, 6, prompt=4)
    together = steer(stack(rows), h, place)
    for row in range(4):
        assert torch.allclose(together[row], alone(rows[row], h, place, row), atol=1e-6)
    assert torch.equal(steer(lifted, h, place), steer(plain, h, place))
    assert not torch.allclose(together[1], together[3])


# Stacks


def test_two_functions_in_a_stack_are_each_alone() -> None:
    rows = [
        of_two(1),
        edit(halve, layer=2),
        of_two(2) | edit(halve, layer=2),
        add(direction(5)),
        edit(halve, layer=2) | of_two(2),
        of_two(3),
    ]
    h, place = randn(len(rows), 5, WIDTH), where(len(rows), 5)
    expected = torch.stack([alone(each, h, place, row) for row, each in enumerate(rows)])
    torch.testing.assert_close(steer(stack(rows), h, place), expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(steer(stack(rows[::-1]), h, place), expected, atol=0.1)


def test_rows_of_one_function_are_one_part_and_of_two_are_two() -> None:
    [part] = stack([of_two(1), of_two(2), of_two(3)]).parts
    assert part.tensors["matrix"].shape == (3, WIDTH, WIDTH)
    assert part.tensors["vector"].shape == (3, 1, WIDTH)
    assert part.tensors["size"].shape == (3, 1, 1)
    again = [edit(lambda h: SCALE * h, layer=2) for _ in range(2)]
    assert len(stack(again).parts) == 1, "the lambdas of one loop are one function"
    assert len(stack([edit(halve, layer=2), of_two(1)]).parts) == 2
    scaled = [edit(functools.partial(torch.mul, other=scale), layer=2) for scale in (1.0, 2.0)]
    assert len(stack(scaled).parts) == 2
    # Zeros fill a smaller subspace of the package's up; what they would do here no one knows.
    narrow = edit(mix, layer=2, tensors=mixed(1) | {"matrix": randn(WIDTH, 1)})
    assert len(stack([of_two(1), narrow]).parts) == 2


def test_functions_that_are_equal_now_are_not_confused_later() -> None:
    """A value of one of two closures changes in place after the edits were made."""
    vectors = [VECTOR.clone(), VECTOR.clone()]
    one, other = (edit((lambda v: lambda h: v)(vector), layer=2) for vector in vectors)
    assert one == other
    vectors[1] *= -1
    h = randn(2, 3, WIDTH)
    together = at_site(stack([one, other]), h)
    torch.testing.assert_close(together, h + torch.stack([VECTOR, -VECTOR])[:, None])


def test_rows_of_one_name_and_two_functions_are_not_confused() -> None:
    """Where a name stands for what cannot be read, only the same object is the same function."""
    one, other = (typed_in(f"def f(h): return {scale} * h", "f") for scale in (1, 2))
    rows = [edit(each, layer=2, name="mine") for each in (one, other, one)]
    h = randn(3, 5, WIDTH)
    together = at_site(stack(rows), h)
    torch.testing.assert_close(together, h * torch.tensor([2.0, 3.0, 2.0])[:, None, None])
    assert sorted(len(part.rows) for part in stack(rows).parts if part.rows is not None) == [1, 2]


def test_the_packages_operators_with_one_function_run_together() -> None:
    """neuron_add and neuron_set are one formula: its rows are one part."""
    step = replace(direction(), site="mlp_post")
    extra = {"mask": (randn(1, WIDTH) > 0).float(), "values": randn(1, WIDTH, seed=1)}
    rows = [neuron_add(replace(step, extra=extra)), neuron_set(replace(step, extra=extra))]
    h, place = randn(2, 5, WIDTH), where(2, 5)
    assert len(stack(rows).parts) == 1
    expected = torch.stack([alone(each, h, place, row) for row, each in enumerate(rows)])
    torch.testing.assert_close(steer(stack(rows), h, place), expected)
    assert not torch.allclose(expected[0], expected[1])


def test_own_functions_steer_a_model(polyglot: Model, lines: Corpus) -> None:
    """Rows of a batch are what each says alone, in decoding and in cross-entropies."""
    texts = lines.split("dev")["en"][:3]
    edits = [
        edit(halve, layer=3),
        edit(mix, layer=3, tensors=mixed(1, 4.0, polyglot.width)),
        edit(mix, layer=3, tensors=mixed(2, 4.0, polyglot.width)) | edit(halve, layer=1),
    ]
    together = generate(polyglot, texts, edit=stack(edits), max_new_tokens=8)
    separately = [
        generate(polyglot, [text], edit=each, max_new_tokens=8)[0]
        for text, each in zip(texts, edits, strict=True)
    ]
    assert together == separately
    assert together != generate(polyglot, texts, max_new_tokens=8)
    both = cross_entropy(polyglot, texts, [*edits, Edit(())])
    for number, each in enumerate(edits):
        torch.testing.assert_close(
            both[[number]], cross_entropy(polyglot, texts, [each]), atol=1e-4, rtol=1e-4
        )
        assert not torch.allclose(both[number], both[-1], atol=0.01)


# Digests


def scaled_by(scale: float) -> Callable[[Tensor], Tensor]:
    return lambda h: scale * h


def with_default(h: Tensor, scale: float = 2.0) -> Tensor:
    return scale * h


def through_a_helper(h: Tensor) -> Tensor:
    return sum([halve(h) for _ in range(2)], torch.zeros(()))


@torch.no_grad()
def without_gradient(h: Tensor) -> Tensor:
    return SCALE * h


@dataclass(frozen=True)
class Setting:
    scale: float
    vector: Tensor


def digest(function: Callable[..., Tensor], **other: Any) -> str:
    return edit(function, layer=2, **other).digest


def test_lambdas_of_one_line_have_digests_of_their_own() -> None:
    pair = [digest(lambda h: h + 1), digest(lambda h: h + 2), digest(lambda h: h + 1)]
    assert pair[0] == pair[2]
    assert pair[0] != pair[1]
    nested = [(lambda s: lambda h: s * h)(scale) for scale in (1.0, 2.0, 1.0)]
    one, two, same = (digest(each) for each in nested)
    assert one == same
    assert one != two


def test_a_digest_follows_closures_defaults_globals_and_helpers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert digest(scaled_by(1.0)) == digest(scaled_by(1.0)) != digest(scaled_by(2.0))
    setting = Setting(1.0, VECTOR)
    closed = lambda given: lambda h: given.scale * given.vector  # noqa: E731
    assert digest(closed(setting)) == digest(closed(Setting(1.0, VECTOR.clone())))
    assert digest(closed(setting)) != digest(closed(Setting(1.0, VECTOR + 1)))
    functions = (halve, through_a_helper, without_gradient)
    before = [digest(each) for each in functions]
    assert before == [digest(each) for each in functions]
    assert len(set(before)) == 3
    default = digest(with_default)
    monkeypatch.setattr(sys.modules[__name__], "SCALE", 0.25)
    assert not set(before) & {digest(each) for each in functions}
    assert digest(with_default) == default, "it does not use the value that changed"
    monkeypatch.setattr(with_default, "__defaults__", (3.0,))
    assert digest(with_default) != default


class Gate(torch.nn.Module):
    shift: Tensor

    def __init__(self, scale: float, shift: float = 0.0) -> None:
        super().__init__()
        self.scale = scale  # no weight and no buffer
        self.register_buffer("shift", torch.tensor(shift), persistent=False)

    def forward(self, h: Tensor) -> Tensor:
        return self.scale * h + self.shift


def set_on_itself(h: Tensor) -> Tensor:
    return set_on_itself.scale * h  # type: ignore[attr-defined]


def test_a_digest_reads_what_was_set_on_a_function(monkeypatch: pytest.MonkeyPatch) -> None:
    digests = []
    for scale in (1.0, 1.0, 2.0):
        monkeypatch.setattr(set_on_itself, "scale", scale, raising=False)
        digests.append(digest(set_on_itself))
    assert digests[0] == digests[1] != digests[2]


def test_a_digest_reads_arrays_modules_of_torch_methods_and_partials() -> None:
    gates = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        gates.append(torch.nn.Linear(WIDTH, WIDTH))
    array = np.arange(3.0)
    kinds: list[Any] = [
        tuple(gates),
        (Gate(1.0), Gate(1.0), Gate(2.0)),
        (Gate(1.0), Gate(1.0), Gate(1.0, shift=1.0)),
        tuple((lambda g: lambda h: torch.sigmoid(g(h)))(gate) for gate in gates),
        (torch.relu, torch.relu, torch.sigmoid),
        (VECTOR.mul, VECTOR.clone().mul, (2 * VECTOR).mul),
        tuple(functools.partial(with_default, scale=scale) for scale in (1.0, 1.0, 2.0)),
        tuple(
            (lambda a: lambda h: h * float(a[0]))(each) for each in (array, array.copy(), -array)
        ),
        tuple(
            (lambda s: lambda h: h * len(s))(each) for each in ({1, "a"}, {"a", 1}, {1, "a", "b"})
        ),
        tuple(torch.vmap(halve, in_dims) for in_dims in (0, 0, 1)),
    ]
    for number, (one, same, other) in enumerate(kinds):
        assert digest(one) == digest(same), number
        assert digest(one) != digest(other), number


def test_a_digest_is_of_the_place_the_positions_the_tensors_and_the_order_too() -> None:
    tensors = mixed(1)
    base = edit(mix, layer=2, tensors=tensors)
    others = [
        edit(mix, layer=3, tensors=tensors),
        edit(mix, layers=[2, 3], tensors=tensors),
        edit(mix, layer=2, tensors=tensors, site="resid_pre"),
        edit(mix, layer=2, tensors=tensors, positions="prompt"),
        edit(mix, layer=2, tensors=tensors, identity=True),
        edit(mix, layer=2, tensors=mixed(2)),
        stack([base]),
        stack([Edit(()), base]),
        base | edit(halve, layer=2),
        edit(halve, layer=2) | base,
        Edit(base.parts, {"fingerprint": "abc"}),
    ]
    assert len({base.digest, *(each.digest for each in others)}) == 1 + len(others)
    assert edit(mix, layer=2, tensors=dict(reversed(tensors.items()))).digest == base.digest
    assert edit(mix, layer=2, tensors=tensors, name="other words").digest == base.digest


def test_equal_edits_do_the_same() -> None:
    assert add(direction()) == add(direction())
    assert add(direction()).digest == add(direction()).digest
    assert add(direction()) != add(direction(), strength=2.0)
    assert add(direction()) != ablate(direction())
    assert of_two(1) == of_two(1) != of_two(2)
    assert of_two(1).parts[0] == of_two(1).parts[0] != of_two(2).parts[0]
    changed = of_two(1)
    before = changed.digest
    changed.parts[0].tensors["vector"][0, 0, 0] += 1
    assert changed != of_two(1)
    assert changed.digest != before, "nothing is kept of a tensor that changed in place"


MODULE = '''
"""{comment}"""
import torch
import settings
SCALE = {scale}

def helper(h):
    return {helper} * h

def mine(h{annotation}):
    """{comment}"""
    # {aside}
    return settings.SHIFT + SCALE * helper(h) + len({{"a", "b", "c"}})

def changing():
    count = 0
    def counted(h):
        nonlocal count
        count += 1
        return h
    return counted

class Caller:
    def __call__(self, h):
        return h
'''


def in_a_process(folder: Path, seed: int, shift: float = 1.0, **given: Any) -> str:
    """The digest of `mine` in a file of these words, as a new process reads it."""
    values = {
        "comment": "none",
        "aside": "none",
        "scale": 1.5,
        "helper": 2,
        "annotation": "",
    } | given
    (folder / "module.py").write_text(MODULE.format(**values), "utf-8")
    (folder / "settings.py").write_text(f"SHIFT = {shift}\n", "utf-8")
    code = "import module; from steerlab.edits.digest import function_digest as f; "
    words = [sys.executable, "-B", "-c", code + "print(f(module.mine))"]
    path = [str(folder), *sys.path]
    env = {"PYTHONPATH": ":".join(path), "PYTHONHASHSEED": str(seed)}
    return subprocess.run(words, capture_output=True, text=True, check=True, env=env).stdout.strip()


def test_a_digest_is_the_same_in_another_process_and_after_other_words(tmp_path: Path) -> None:
    first = in_a_process(tmp_path, 0)
    words = in_a_process(tmp_path, 1, comment="other\n\nlines", aside="other", annotation=": int")
    assert first == words
    changed: list[dict[str, Any]] = [{"scale": 2.5}, {"helper": 3}, {"shift": 2.0}]
    others = [in_a_process(tmp_path, 0, **given) for given in changed]
    assert len({first, *others}) == 4


def typed_in(code: str, name: str) -> Any:
    """A function whose source is in no file, as at a prompt."""
    names: dict[str, Any] = {}
    exec(code, names)
    return names[name]


def test_what_cannot_be_read_needs_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "unreadable_module.py").write_text(
        MODULE.format(comment="", aside="", scale=1, helper=1, annotation="").replace(
            "import settings", ""
        )
    )
    monkeypatch.syspath_prepend(tmp_path)
    import unreadable_module  # type: ignore[import-not-found]

    stream = open(tmp_path / "unreadable_module.py", encoding="utf-8")  # noqa: SIM115
    for function, reason in [
        (typed_in("def f(h): return h", "f"), "f does cannot be read .its source is not in a file"),
        (unreadable_module.changing(), "counted does .* changes names of the function around it"),
        (unreadable_module.Caller(), "Caller does .* uses an object of type Caller"),
        (lambda h: h * len(stream.name), "uses an object of type TextIOWrapper"),
    ]:
        with pytest.raises(SteerlabError, match=f"{reason}.*give name=, another one for each"):
            edit(function, layer=2)
        named = edit(function, layer=2, name="mine")
        assert named.digest == edit(function, layer=2, name="mine").digest
        assert named.digest != edit(function, layer=2, name="another").digest
    stream.close()
    assert edit(halve, layer=2, name="mine").digest == edit(halve, layer=2).digest


def test_a_file_that_changed_behind_a_function_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "changing_module.py"
    file.write_text("def f(h):\n    return 2 * h\n")
    monkeypatch.syspath_prepend(tmp_path)
    import changing_module  # type: ignore[import-not-found]

    function_digest(changing_module.f)
    file.write_text("def g(h):\n    return h\n\n\ndef f(h):\n    return 3 * h\n")
    with pytest.raises(SteerlabError, match="its source is not where it was when it was loaded"):
        function_digest(changing_module.f)


# Pickling


def test_an_edit_of_a_modules_function_pickles() -> None:
    h = randn(2, 5, WIDTH)
    for one in (of_two(1), edit(halve, layer=2) | add(direction()), stack([of_two(1), of_two(2)])):
        back = pickle.loads(pickle.dumps(one))
        assert back == one
        assert same_bits(steer(back, h), steer(one, h))
    back = pickle.loads(pickle.dumps(add(direction())))
    assert back.parts[0].change is add(direction()).parts[0].change
    assert len(stack([back, add(direction(1))]).parts) == 1
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(edit(lambda h: h, layer=2))


# What is refused


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda h: h[:, :, 0], r"wrong returned the shape \[2, 3\], and h has \[2, 3, 16\]"),
        (lambda h: h[:, 0], r"wrong returned the shape \[2, 16\]"),
        (lambda h: h[..., :1], r"wrong returned the shape \[2, 3, 1\]"),
        (lambda h: h[:, :2], r"wrong returned the shape \[2, 2, 16\]"),
        (lambda h: h[0, 0, :4], r"wrong returned the shape \[1, 1, 4\]"),
        (lambda h: h.double(), "wrong returned float64, and h is float32 whatever the model"),
        (lambda h: h > 0, "wrong returned bool, and h is float32"),
        (lambda h: None, "wrong returned NoneType; return what is added to h, a tensor"),
        (lambda h: (h / 0) * 0, r"wrong returned NaN or infinity at 6 of 6 positions, where h is"),
    ],
)
def test_a_wrong_return_is_told_with_the_functions_name(
    wrong: Callable[[Tensor], Any], told: str
) -> None:
    h = randn(2, 3, WIDTH)
    broken = edit(wrong, layer=2, name="wrong")
    with pytest.raises(SteerlabError, match=told):
        at_site(broken, h)
    [(_, hook)] = broken.hooks(bos=False)
    with pytest.raises(SteerlabError, match=told):
        hook(h, hook=None)
    right = edit(lambda h: h, layer=2, name="wrong")
    torch.testing.assert_close(at_site(right, h), 2 * h)


def test_nan_in_padding_is_nobodys_fault() -> None:
    h, place = randn(2, 5, WIDTH), where(2, 5)
    h[~place.text] = float("nan")
    steered = steer(edit(halve, layer=2), h, place)
    assert torch.isfinite(steered[place.text]).all()
    with pytest.raises(SteerlabError, match="log returned NaN or infinity"):
        steer(edit(torch.log, layer=2), h, place)


def test_what_an_own_edit_is_made_of_is_checked() -> None:
    nan = float("nan")
    for make, told in [
        (lambda: edit(halve), "the edit of halve takes layer= or, for several, layers="),
        (lambda: edit(halve, layer=1, layers=[2]), "the edit of halve takes layer= or"),
        (lambda: edit(halve, layers=[]), "the edit of halve takes layer= or"),
        (lambda: edit(halve, layer=1, site="attention"), "there is no site 'attention'; the sites"),
        (lambda: edit(halve, layer=1, positions="lats"), "there are no positions 'lats'; use all"),
        (
            lambda: edit(halve, layer=1, tensors={"v": VECTOR}),
            "halve takes h alone and would never see the tensors v; let it take",
        ),
        (
            lambda: edit(mix, layer=1, tensors=mixed(1) | {"size": nan}),
            "mix: size holds NaN or infinity",
        ),
        (lambda: edit(lambda: VECTOR, layer=1), r"<lambda> takes \(\); a function of an edit"),
        (lambda: edit(lambda a, b, c, d: a, layer=1), r"<lambda> takes \(a, b, c, d\); a function"),
        (lambda: edit(lambda h, *, size: h, layer=1), r"takes \(h, \*, size\); a function of"),
    ]:
        with pytest.raises(SteerlabError, match=told):
            make()
    with pytest.raises(SteerlabError, match="no layer 9"), edit(halve, layer=9).on(Fake()):
        pass
    no_function: Any = 3
    told = r"a function of \(h\), \(h, tensors\) or .*, not of int|Type-check error"
    with pytest.raises((SteerlabError, jaxtyping.TypeCheckError), match=told):
        edit(no_function, layer=2)


def test_plain_hooks_have_no_positions_to_give() -> None:
    lifted = edit(lift_generated, layer=2, tensors={"vector": VECTOR})
    with pytest.raises(SteerlabError, match="no positions to give to lift_generated; use edit.on"):
        lifted.hooks(bos=True)
    h = randn(2, 4, WIDTH)
    [(name, hook)] = of_two(1).hooks(bos=False)
    assert name == "blocks.2.hook_resid_post"
    torch.testing.assert_close(hook(h, hook=None), at_site(of_two(1), h))
