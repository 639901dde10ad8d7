"""The experiment on parity: our GGUF is the model, what is compared is compared, and llama.cpp,
where it is installed, steers as we do."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "experiments" / "parity"))

import as_gguf
import others
import parity
import parity_page
import with_vllm
from parity import Found, compared

import steerlab as sl
from steerlab.core.directions import Directions
from steerlab.core.exchange import FORMATS, table
from steerlab.engine.prompts import encode
from steerlab.models.model import Model

# Of logits; llama.cpp's GELU, which Gemma has, is a table in float16.
CLOSE = {"llama": 2e-4, "gemma3_text": 5e-3}
IDS = [1, 5, 9, 33, 7, 20, 41, 2]


def tiny(kind: str) -> Any:
    """A random model of few parameters whose logits are no small numbers, in float32."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32 if kind == "gemma3_text" else 8,
        "max_position_embeddings": 64,
    }
    if kind == "gemma3_text":
        sizes |= {"sliding_window": 32, "query_pre_attn_scalar": 32}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.2)
    return model


@torch.inference_mode()
def logits_of(model: Any, ids: list[int]) -> Any:
    return model(input_ids=torch.tensor([ids])).logits[0].numpy()


def written_folder(kind: str, folder: Path) -> tuple[Any, torch.Tensor]:
    """A folder as the other tools read it: the model, rows, and a vector at block 1."""
    model = tiny(kind)
    as_gguf.write(folder / "model.gguf", model)
    step = torch.randn(32, generator=torch.Generator().manual_seed(1)) * 3
    directions = Directions(
        vectors=torch.stack([torch.zeros_like(step), step])[:, None],
        basis=torch.stack([torch.zeros_like(step), step / step.norm()])[:, None, None],
        means=torch.stack([torch.zeros_like(step), step])[:, None],
        langs=("en", "es"),
        layers=(1,),
        site="resid_post",
    )
    directions.between("en", "es").export(folder / "vector.gguf")
    (folder / "rows.json").write_text(json.dumps([{"ids": IDS, "prompt": IDS[:4]}]), "utf-8")
    (folder / "about.json").write_text(json.dumps({"gguf": str(folder / "model.gguf")}), "utf-8")
    return model, step


@pytest.mark.parametrize("kind", ["llama", "gemma3_text"])
def test_llama_cpp_steers_by_our_file(kind: str, tmp_path: Path) -> None:
    """A real llama.cpp; its control vector is added to the output of block 1 at every position."""
    pytest.importorskip("llama_cpp")
    model, step = written_folder(kind, tmp_path)
    script = Path(others.__file__)
    subprocess.run([sys.executable, str(script), "llama.cpp", str(tmp_path)], check=True)
    plain = logits_of(model, IDS)
    block = model.model.layers[1]
    with torch.inference_mode():
        handle = block.register_forward_hook(lambda _, __, out: out + step)
        steered = logits_of(model, IDS)
        handle.remove()
    assert np.abs(plain - steered).max() > 0.5  # the control: the vector does something
    for name, wanted in (("llama.cpp-plain", plain), ("llama.cpp", steered)):
        with np.load(tmp_path / f"{name}.npz") as held:
            assert np.abs(held["logits0"] - wanted).max() < CLOSE[kind]


@pytest.mark.parametrize("kind", ["llama", "gemma3_text"])
def test_the_gguf_is_the_model(kind: str, tmp_path: Path) -> None:
    """Without llama.cpp: what a file holds, in the format's order, is the weights."""
    from gguf import GGUFReader

    model = tiny(kind)
    as_gguf.write(tmp_path / "model.gguf", model)
    held = {each.name: np.array(each.data) for each in GGUFReader(tmp_path / "model.gguf").tensors}
    names = {as_gguf.named(name, kind): weight for name, weight in model.named_parameters()}
    assert set(held) == set(names)
    for name, weight in names.items():
        wanted = weight.detach().numpy()
        if kind == "gemma3_text" and name.endswith("norm.weight"):
            wanted = wanted + 1
        if kind == "llama" and name.endswith(("attn_q.weight", "attn_k.weight")):
            # Rotated pairs lie side by side: (0, half), (1, half + 1), ...
            heads = wanted.shape[0] // 8
            order = [
                8 * head + place + 4 * half
                for head in range(heads)
                for place in range(4)
                for half in (0, 1)
            ]
            wanted = wanted[order]
        assert np.array_equal(held[name], wanted), name
    model.config.model_type = "gpt2"
    with pytest.raises(SystemExit, match="gpt2 is not written; these are: llama, gemma3_text"):
        as_gguf.write(tmp_path / "other.gguf", model)


def test_our_views_agree_and_the_comparison_sees_what_differs(
    polyglot: Model, directions: Directions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(parity, "NEW", 4)
    bed = parity.Bed.__new__(parity.Bed)
    bed.name, bed.model = "polyglot", polyglot
    bed.direction = directions.between("en", "es").at(5)
    bed.edit = sl.add(bed.direction, positions="everywhere")
    bed.prompts = encode(polyglot.tokenizer, parity.TEXTS[:1])
    rows, steered = parity.reference(bed)
    [row], [prompt] = rows, bed.prompts
    assert row[: len(prompt)] == prompt
    assert len(row) == len(prompt) + 4
    bed.folder = tmp_path
    bridge = parity.found(bed, parity.bridge, rows, steered=True)
    baked = parity.found(bed, parity.baked, rows, steered=True)
    plain = parity.found(bed, parity.hook, rows, steered=False)
    same, other = compared(steered, bridge), compared(steered, plain)
    for each in (same, compared(steered, baked)):
        assert each["logits"] < 1e-3
        assert (each["likeliest"], each["said"]) == (1, 1)
    assert other["logits"] > 1
    assert other["likeliest"] < 1


def test_what_a_run_lacks_is_told_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is none, and a model whose package is not there, which comes last."""

    def begun(*_: Any) -> None:
        raise AssertionError("the work has begun")

    monkeypatch.setattr(parity, "Bed", begun)
    for words in (["--only", "repeng,llama"], ["--models", "llama"]):
        monkeypatch.setattr(sys, "argv", ["parity.py", *words])
        with pytest.raises(SystemExit, match="'llama' is none of"):
            parity.main()
    missing = sl.SteerlabError("which is not installed")
    monkeypatch.setattr("steerlab.models.data_packages._pieces", Mock(side_effect=missing))
    monkeypatch.setattr(sys, "argv", ["parity.py"])
    with pytest.raises(sl.SteerlabError, match="not installed"):
        parity.main()


def test_what_is_compared() -> None:
    one = Found([np.array([[0.0, 1.0], [3.0, 2.0]])], [[1, 2, 3, 4]])
    two = Found([np.array([[0.0, 1.5], [1.0, 2.0]])], [[1, 2, 9, 4]])
    assert compared(one, two) == {"logits": 2.0, "likeliest": 0.5, "said": 0.75}
    assert compared(one, one) == {"logits": 0.0, "likeliest": 1.0, "said": 1.0}


def test_the_page_has_a_row_for_each_format() -> None:
    made = parity_page.text("| a |", ["polyglot: layer 5"], ["repeng==0.4.0"], table(), 16)
    for kind in FORMATS:
        assert f"| {kind.name} | {kind.ending} |" in made
    assert "{" not in made


def test_what_vllm_lens_is_given(directions: Directions, tmp_path: Path) -> None:
    """The layers, the numbers and the keys; vLLM itself does not run here."""
    direction = directions.between("en", "es").at(2, 5)
    given = with_vllm.steering(direction.export(tmp_path / "v.npz", strength=1.5), 2.0)
    steps = 3.0 * direction.gap[:, None] * direction.unit
    assert given["layer_indices"] == [2, 5]
    assert np.allclose(given["activations"], steps.numpy(), rtol=1e-6)
    assert given["activations"].dtype == np.float32
    assert (given["scale"], given["norm_match"], given["position_indices"]) == (1.0, False, None)
    with_vllm.need_changed(["a", "b"], ["a", "c"])
    with pytest.raises(SystemExit, match="it was not applied"):
        with_vllm.need_changed(["a", "b"], ["a", "b"])
