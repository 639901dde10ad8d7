"""Each kind of thing that `load` cannot take has its own sentence, and what users hold loads."""

import json
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import PROMPTS

import steerlab as sl
from steerlab.core.errors import SteerlabError
from steerlab.engine.decoding import generate
from steerlab.engine.prompts import encode
from steerlab.models.checks import need_causal, need_package
from steerlab.models.loading import load

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 100\n"


@pytest.fixture
def folder(tiny: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy of a model's folder, to be broken."""
    return Path(shutil.copytree(tiny("llama"), tmp_path / "model"))


def edit(file: Path, **changes: Any) -> None:
    content = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(content | changes))


def refused(folder: Path, told: str, **options: Any) -> None:
    with pytest.raises(SteerlabError, match=told):
        load(folder, **options)


def test_each_kind_of_folder_has_its_own_sentence(folder):
    tokenizer = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(POINTER)
    refused(folder, r"tokenizer\.json is a pointer of Git LFS .*git lfs pull")
    (folder / "tokenizer.json").unlink()
    kept = (folder / "tokenizer_config.json").read_text()
    (folder / "tokenizer_config.json").unlink()
    refused(folder, r"has a model and no tokenizer .*load\(\.\.\., tokenizer=")
    (folder / "tokenizer.json").write_text(tokenizer)
    refused(folder, r"has no tokenizer_config\.json, which says which tokens begin")
    (folder / "tokenizer_config.json").write_text(kept)
    shards = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(shards))
    refused(folder, r"lacks model-00001-of-00002\.safetensors, one of the 2 files of weights")
    (folder / "model.safetensors.index.json").unlink()
    edit(folder / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    refused(folder, "quantised by gptq, which the package gptqmodel reads, .*pip install gptqmodel")
    (folder / "config.json").write_text("{")
    refused(folder, r"config\.json is no JSON that can be read")
    (folder / "config.json").unlink()
    refused(folder, r"it has no config\.json; give the folder that holds one")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    refused(folder, "does not say which model the adapter is for")


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"model_type": "xlm-roberta"}, "is a masked language model .* take a causal"),
        ({"model_type": "bert"}, "is a masked language model"),
        ({"model_type": "modernbert"}, "is a masked language model"),
        ({"model_type": "electra", "is_decoder": False}, "is a masked language model"),
        ({"model_type": "t5", "is_encoder_decoder": True}, "has an encoder and a decoder"),
        (
            {
                "model_type": "mbart",
                "is_encoder_decoder": True,
                "architectures": ["MBartForConditionalGeneration"],
            },
            "has an encoder and a decoder",
        ),
        ({"model_type": "gemma3_text", "use_bidirectional_attention": True}, "sees those after it"),
        ({"model_type": "clip"}, "'clip', which is no causal language model"),
        ({"model_type": "brand_new"}, "'brand_new', which this transformers does not know"),
        (
            {"model_type": "x", "auto_map": {"AutoConfig": "x.X"}},
            "its own code .*trust_remote_code",
        ),
    ],
)
def test_what_is_no_causal_language_model_is_refused_by_its_configuration(config, told):
    with pytest.raises(SteerlabError, match=told):
        need_causal(config, "some/model", trust_remote_code=False)


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "llama"},
        {"model_type": "bert", "is_decoder": True},
        {"model_type": "bart", "architectures": ["BartForCausalLM"]},
        {"model_type": "xglm"},
    ],
)
def test_what_is_one_is_not_refused(config):
    need_causal(config, "some/model", trust_remote_code=False)


def missing(name: str) -> None:
    """What `find_spec` gives on a machine that has none of the packages."""
    if "." in name:
        raise ModuleNotFoundError(f"No module named {name.partition('.')[0]!r}")


@pytest.mark.parametrize(
    "method",
    "bitsandbytes awq hqq compressed-tensors gptq aqlm quanto torchao eetq vptq spqr auto-round "
    "fbgemm_fp8 mxfp4 higgs quark fp_quant fouroversix sinq fp8 bitnet".split(),
)
def test_the_package_of_quantised_weights_is_named(method, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", missing)
    with pytest.raises(SteerlabError, match=f"quantised by {method}, which the package .* reads"):
        need_package({"quantization_config": {"quant_method": method}}, "some/model")
    need_package({}, "some/model")


def test_code_of_a_folder_never_runs_unless_it_is_said(folder, tmp_path, monkeypatch):
    """Not by an answer on the terminal either."""
    mark = tmp_path / "ran"
    code = f"open({str(mark)!r}, 'w').close()\nclass Own: pass\n"
    (folder / "own.py").write_text(code)
    auto = {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}
    monkeypatch.setattr(sys.stdin, "readline", lambda *_: "y\n", raising=False)
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    edit(folder / "config.json", auto_map=auto)
    load(folder)  # transformers knows the architecture itself
    edit(folder / "config.json", model_type="own")
    refused(folder, "brings its own code .*trust_remote_code=True")
    assert not mark.exists()
    with suppress(Exception):  # it is no model, and does not get that far
        load(folder, trust_remote_code=True)
    assert mark.exists(), "the code is what would have run"


def test_a_tokenizer_with_code_does_not_run_it_either(folder, tmp_path, monkeypatch):
    mark = tmp_path / "ran"
    (folder / "own.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass Own: pass\n")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    edit(
        folder / "tokenizer_config.json",
        auto_map={"AutoTokenizer": ["own.Own", None]},
        tokenizer_class="Own",
    )
    with suppress(SteerlabError):
        load(folder)
    assert not mark.exists()


def test_a_subfolder(folder, tmp_path):
    top = tmp_path / "top"
    top.mkdir()
    shutil.move(folder, top / "inner")
    refused(top, "it has no config.json; .*subfolder=")
    assert load(top, subfolder="inner").n_layers == 3


# ------------------------------------------------------------------------------- what users hold


def in_memory(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    hf = AutoModelForCausalLM.from_pretrained(folder)
    return hf, AutoTokenizer.from_pretrained(folder, padding_side="right")


def test_a_model_in_memory_is_the_model_of_its_folder(lively):
    hf, tokenizer = in_memory(lively("llama"))
    tokenizer.pad_token = None
    with pytest.raises(SteerlabError, match=r"does not hold its tokenizer; give load\(model, tok"):
        load(hf)
    model, same = load(hf, tokenizer=tokenizer), load(lively("llama"))
    assert model.hf is hf
    assert (tokenizer.padding_side, tokenizer.pad_token) == ("right", None), "it is the user's"
    assert generate(model, PROMPTS, max_new_tokens=4) == generate(same, PROMPTS, max_new_tokens=4)
    assert load(model) is model


def test_a_model_in_memory_sweeps_here_and_says_why_not_elsewhere(lively, lines):
    import pickle

    hf, tokenizer = in_memory(lively("llama"))
    model = load(hf, tokenizer=tokenizer)
    grid: Any = {"layers": [1], "limit": 1, "strengths": [1.0], "targets": ["de"]}
    assert len(sl.sweep(model, lines.select(["en", "de"]), **grid))
    with pytest.raises(SteerlabError, match="made in memory and lives in this process only; .*Ray"):
        pickle.dumps(model)


def test_what_is_no_language_model_is_refused():
    with pytest.raises(SteerlabError, match="causal language model of transformers, not Linear"):
        load(torch.nn.Linear(2, 2), tokenizer=object())


# The ways in which accelerate may lay a model out on a machine without a GPU.
PLACES = {"model.embed_tokens": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu"}
PLACES |= {"lm_head": "cpu", "model.layers.0": "cpu"}
PLACES |= {"model.layers.1": "disk", "model.layers.2": "disk"}


def laid_out(way: str, folder: Path, offload: Path) -> Any:
    """A model whose weights are fetched when they are needed."""
    from transformers import AutoModelForCausalLM

    accelerate = pytest.importorskip("accelerate")
    if way == "loaded onto disk":
        make: Any = AutoModelForCausalLM.from_pretrained
        return make(folder, device_map=PLACES, offload_folder=offload, dtype=torch.float32)
    hf, _ = in_memory(folder)
    if way == "all in memory":
        return accelerate.cpu_offload(hf, execution_device=torch.device("cpu"))
    if way == "all on disk":
        cpu = torch.device("cpu")
        return accelerate.disk_offload(hf, offload, execution_device=cpu)
    return accelerate.dispatch_model(hf, PLACES, offload_dir=offload, main_device="cpu")


@pytest.mark.parametrize(
    "way", ["some on disk", "all on disk", "all in memory", "loaded onto disk"]
)
def test_a_model_whose_weights_lie_elsewhere(lively, tmp_path, way):
    """accelerate fetches them when they are needed: fingerprint and numbers are the same, read,
    predicted, decoded and under an edit."""
    from conftest import random_directions

    whole = load(lively("llama"))
    hf = laid_out(way, lively("llama"), tmp_path)
    model = load(hf, tokenizer=whole.tokenizer)
    assert model.device.type == "cpu"
    assert model.fingerprint.split("-")[0] == whole.fingerprint.split("-")[0]
    assert generate(model, PROMPTS, max_new_tokens=4) == generate(whole, PROMPTS, max_new_tokens=4)
    lines = sl.corpus(langs=["en", "de"]).take(4)
    torch.testing.assert_close(sl.collect(model, lines).mean, sl.collect(whole, lines).mean)
    edit = sl.add(random_directions(whole).between("en", "es").at(1))
    for call in (
        lambda each: generate(each, PROMPTS, max_new_tokens=4, edit=edit),
        lambda each: sl.cross_entropy(each, PROMPTS, edit).tolist(),
    ):
        assert call(model) == call(whole)


def test_weights_in_eight_bits_are_computed_with_where_there_is_no_gpu(lively, tmp_path):
    """fp8 by blocks, each with its scale, as released checkpoints have it: the numbers are those of
    the weights that the eight bits stand for."""
    from safetensors.torch import load_file, save_file

    pytest.importorskip("accelerate")
    folder = Path(shutil.copytree(lively("llama"), tmp_path / "eight"))
    plain = Path(shutil.copytree(lively("llama"), tmp_path / "plain"))
    weights = load_file(folder / "model.safetensors")
    eight, same = {}, {}
    for name, value in weights.items():
        eight[name] = same[name] = value.to(torch.bfloat16)
        if "proj" in name:
            blocks = value.float().unflatten(0, (-1, 16)).unflatten(-1, (-1, 16))
            scale = blocks.abs().amax((1, 3)) / 448  # the largest number of the kind
            few = (blocks / scale[:, None, :, None]).to(torch.float8_e4m3fn)
            back = few.float() * scale[:, None, :, None]
            eight[name] = few.flatten(2).flatten(0, 1)
            eight[f"{name}_scale_inv"] = scale
            same[name] = back.flatten(2).flatten(0, 1).to(torch.bfloat16)
    save_file(eight, folder / "model.safetensors", {"format": "pt"})
    save_file(same, plain / "model.safetensors", {"format": "pt"})
    method = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [16, 16]}
    edit_config = {"quantization_config": method, "dtype": "bfloat16"}
    edit(folder / "config.json", **edit_config)
    edit(plain / "config.json", dtype="bfloat16")
    model, wanted = load(folder, dtype="bfloat16"), load(plain, dtype="bfloat16")
    assert generate(model, PROMPTS, max_new_tokens=4) == generate(wanted, PROMPTS, max_new_tokens=4)
    lines = sl.corpus(langs=["en", "de"]).take(4)
    torch.testing.assert_close(
        sl.collect(model, lines).mean, sl.collect(wanted, lines).mean, atol=0.05, rtol=0.05
    )


# ----------------------------------------------------------------------------- tokens and reading


def test_token_ids_outside_the_embedding_are_refused(lively):
    model = load(lively("llama"))
    model.tokenizer.add_tokens(["<new>"])
    with pytest.raises(SteerlabError, match=r"'<new>' has the number 12288, .* embedding of 12288"):
        generate(model, ["a <new> b"], max_new_tokens=1)


def test_padding_outside_the_embedding_pads_all_the_same(lively):
    model, same = load(lively("llama")), load(lively("llama"))
    model.tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    assert model.tokenizer.pad_token_id == model.embedded
    assert generate(model, PROMPTS, max_new_tokens=4) == generate(same, PROMPTS, max_new_tokens=4)


def test_nothing_that_only_reads_changes_what_comes_after(lively):
    """The bridge, sites and widths of a model whose tokenizer has no BOS, among others."""
    from conftest import NO_BOS

    model = load(lively(NO_BOS))
    ids, said = encode(model.tokenizer, PROMPTS), generate(model, PROMPTS, max_new_tokens=4)
    before = model.fingerprint
    model.tl.run_with_cache("Hello")
    model.tl.generate("Hello", max_new_tokens=2, verbose=False)
    load(model.tl)
    assert model.width_of("attn_z")
    assert model.head.unembedding.shape[0] == model.vocabulary
    sl.collect(model, sl.corpus(langs=["en", "de"]).take(1))
    assert encode(model.tokenizer, PROMPTS) == ids
    assert generate(model, PROMPTS, max_new_tokens=4) == said
    assert model.fingerprint == before


def test_folded_weights_are_said_and_refused_across(polyglot, directions):
    """TransformerLens folds norms by default: its activations are others."""
    import transformer_lens

    config = transformer_lens.HookedTransformerConfig(
        n_layers=8,
        d_model=polyglot.width,
        n_ctx=64,
        d_head=32,
        n_heads=8,
        d_vocab=100,
        act_fn="gelu",
        normalization_type="LNPre",
        default_prepend_bos=True,
    )
    folded = load(transformer_lens.HookedTransformer(config))
    assert folded.metadata["processing"] == "norms folded (LNPre)"
    step = sl.add(directions.between("en", "de").at(3))
    with pytest.raises(SteerlabError, match="made with raw weights of .* has norms folded"):
        step.on(folded).__enter__()
    plain = transformer_lens.HookedTransformer(config)
    assert load(plain).metadata["parameters"] != folded.metadata["parameters"]


# --------------------------------------------------------- where the packages are there


def test_an_adapter_is_loaded_onto_its_base(lively, tmp_path):
    peft = pytest.importorskip("peft")
    hf, tokenizer = in_memory(lively("llama"))
    config = peft.LoraConfig(target_modules=["q_proj", "down_proj"], r=4)
    adapted = peft.get_peft_model(hf, config).eval()
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora" in name:
                weight.normal_(0, 0.3)
    adapted.save_pretrained(tmp_path)
    ids = torch.tensor([[1, 40, 50, 60]])
    base = load(lively("llama"))
    for model in (load(tmp_path), load(adapted, tokenizer=tokenizer)):
        assert torch.equal(model.hf(ids).logits, adapted(ids).logits)
        assert model.fingerprint != base.fingerprint


@pytest.mark.parametrize("bits", [4, 8])
def test_quantised_weights_are_read_and_edited_as_they_are(tmp_path, bits):
    pytest.importorskip("bitsandbytes")
    from conftest import random_directions, save_tiny
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    config = BitsAndBytesConfig(load_in_8bit=bits == 8, load_in_4bit=bits == 4)
    whole = save_tiny(tmp_path / "whole", "llama", lively=True, width=64)
    hf = AutoModelForCausalLM.from_pretrained(whole, quantization_config=config)
    tokenizer = in_memory(whole)[1]
    hf.save_pretrained(tmp_path / "quantised")
    tokenizer.save_pretrained(tmp_path / "quantised")
    ids = torch.tensor([[1, 40, 50, 60]])
    held, read = load(hf, tokenizer=tokenizer), load(tmp_path / "quantised")
    assert torch.equal(read.hf(ids).logits, hf(ids).logits)
    assert held.fingerprint == read.fingerprint
    step = sl.add(random_directions(read).between("en", "es").at(1), strength=3.0)
    plain = generate(read, PROMPTS, max_new_tokens=4)
    assert generate(held, PROMPTS, max_new_tokens=4) == plain
    assert generate(read, PROMPTS, edit=step, max_new_tokens=4) != plain
