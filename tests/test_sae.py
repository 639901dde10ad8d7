"""Autoencoders compute what sae-lens computes, from every format, and are refused where they do
not belong."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from einops import rearrange
from safetensors.torch import load_file, save_file
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.core.sites import SITES, hook_name
from steerlab.models.model import Model
from steerlab.sae import SAE, saes
from steerlab.sae.hooks import place_of

WIDTH, LATENTS = 12, 40
HOOK = "blocks.2.hook_resid_post"


def weights(seed: int = 0, width: int = WIDTH, latents: int = LATENTS) -> dict[str, Any]:
    """Random ones, with decoder rows of many lengths and a threshold of its own for each latent."""
    random = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=random)  # noqa: E731
    told: dict[str, Any] = {
        "W_enc": draw(width, latents),
        "W_dec": draw(latents, width) * (0.1 + draw(latents, 1).abs()),
    }
    return told | {"b_enc": draw(latents), "b_dec": draw(width), "threshold": draw(latents).abs()}


def jumprelu(
    seed: int = 0, *, layer: int = 2, about: dict[str, Any] | None = None, **sizes: int
) -> SAE:
    return SAE(
        **weights(seed, **sizes), kind="jumprelu", layer=layer, site="resid_post", about=about or {}
    )


def activations(seed: int = 5, width: int = WIDTH) -> Tensor:
    return 2 * torch.randn(3, 7, width, generator=torch.Generator().manual_seed(seed))


def theirs(kind: str, **told: Any) -> Any:
    """An autoencoder object of sae-lens with random weights."""
    from sae_lens.registry import get_sae_class
    from sae_lens.saes.sae import SAEMetadata

    made, configured = get_sae_class(kind)
    config = configured(WIDTH, LATENTS, **told)
    config.metadata = SAEMetadata(hook_name=HOOK, model_name="some model")
    found = made(config)
    with torch.no_grad():
        for name, value in weights().items():
            if hasattr(found, name):
                getattr(found, name).copy_(value)
    return found


@pytest.fixture(params=["standard", "jumprelu", "topk", "topk by norm", "b_dec kept"])
def of_sae_lens(request: pytest.FixtureRequest) -> Any:
    if request.param == "b_dec kept":
        return theirs("jumprelu", apply_b_dec_to_input=False)
    if request.param.startswith("topk"):
        return theirs("topk", k=5, rescale_acts_by_decoder_norm="norm" in request.param)
    return theirs(request.param)


@torch.no_grad()
def agree(ours: SAE, other: Any, *, exactly: bool = True) -> None:
    h = activations()
    z, expected = ours.encode(h), other.encode(h)
    assert 0 < (z > 0).float().mean() < 1
    if exactly:
        assert torch.equal(z, expected)
        assert torch.equal(ours.decode(z), other.decode(expected))
    else:
        torch.testing.assert_close(z, expected)
        torch.testing.assert_close(ours.decode(z), other.decode(expected))


# ------------------------------------------------------------------------------------ sae-lens' own


def test_an_object_and_a_folder_of_sae_lens_compute_the_same(
    of_sae_lens: Any, tmp_path: Path
) -> None:
    of_sae_lens.save_model(tmp_path)
    folds = getattr(of_sae_lens.cfg, "rescale_acts_by_decoder_norm", False)
    for ours in (SAE.of(of_sae_lens), SAE.load(tmp_path)):
        agree(ours, of_sae_lens, exactly=not folds)
        assert (ours.site, ours.layer, ours.width, ours.latents) == (
            "resid_post",
            2,
            WIDTH,
            LATENTS,
        )
        assert ours.about["model"] == "some model"


@pytest.mark.parametrize("kind", ["topk", "batchtopk", "jumprelu"])
def test_what_sae_lens_trains_is_read_as_it_reads_it(kind: str, tmp_path: Path) -> None:
    from sae_lens import SAE as TheirSAE
    from sae_lens import TrainingSAE
    from sae_lens.saes.sae import SAEMetadata

    told: dict[str, Any] = {
        "architecture": kind,
        "d_in": WIDTH,
        "d_sae": LATENTS,
        "metadata": {"hook_name": HOOK},
    }
    made = TrainingSAE.from_dict(told | ({} if kind == "jumprelu" else {"k": 5}))
    assert isinstance(made.cfg.metadata, SAEMetadata)
    with torch.no_grad():
        made.b_enc.copy_(weights()["b_enc"])
        if kind == "batchtopk":
            made.topk_threshold.fill_(0.05)  # the decoder rows of a new one are short
    made.save_inference_model(tmp_path)
    ours = SAE.load(tmp_path)
    agree(ours, TheirSAE.load_from_disk(tmp_path), exactly=kind != "topk")
    assert ours.kind == ("topk" if kind == "topk" else "jumprelu")


def test_a_file_of_before_version_6_is_read(tmp_path: Path) -> None:
    from sae_lens import SAE as TheirSAE

    save_file(
        {name: value for name, value in weights().items() if name != "threshold"},
        tmp_path / "sae_weights.safetensors",
    )
    old = {
        "d_in": WIDTH,
        "d_sae": LATENTS,
        "dtype": "float32",
        "hook_name": HOOK,
        "model_name": "gpt2-small",
    }
    old |= {
        "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": 5},
        "normalize_activations": False,
    }
    (tmp_path / "cfg.json").write_text(json.dumps(old))
    ours = SAE.load(tmp_path)
    agree(ours, TheirSAE.load_from_disk(tmp_path))
    assert (ours.kind, ours.k, ours.about["model"]) == ("topk", 5, "gpt2-small")


def test_activations_and_weights_of_16_bit_are_computed_in_float32() -> None:
    halves = SAE(
        **{name: value.half() for name, value in weights().items()},
        kind="jumprelu",
        layer=2,
        site="resid_post",
    )
    h = activations().half()
    assert halves.encode(h).dtype == halves.decode(halves.encode(h)).dtype == torch.float32
    assert torch.equal(halves.encode(h), halves.encode(h.float()))
    coarse = (h - weights()["b_dec"].half()) @ weights()["W_enc"].half() + weights()["b_enc"].half()
    assert not torch.equal(
        halves.encode(h), (coarse.relu() * (coarse > weights()["threshold"].half())).float()
    )


# ------------------------------------------------------------------------------- saving and loading


def test_a_learned_threshold_is_honoured_after_saving_and_loading(tmp_path: Path) -> None:
    from sae_lens import SAE as TheirSAE

    made = jumprelu(about={"model": "some model", "fingerprint": "0123456789abcdef"})
    read = SAE.load(made.save(tmp_path / "new" / "folder"))
    h = activations()
    pre = (h - made.b_dec) @ made.W_enc + made.b_enc
    assert made.threshold is not None
    between = (pre > 0) & (pre <= made.threshold)
    assert between.any()
    assert not read.encode(h)[between].any()
    assert torch.equal(read.encode(h), made.encode(h))
    agree(read, TheirSAE.load_from_disk(tmp_path / "new" / "folder"))
    assert read.digest == made.digest
    assert (read.about["model"], read.about["fingerprint"]) == ("some model", "0123456789abcdef")


@pytest.mark.parametrize("kind", ["relu", "topk"])
def test_other_kinds_survive_too(kind: str, tmp_path: Path) -> None:
    from sae_lens import SAE as TheirSAE

    parts = {name: value for name, value in weights().items() if name != "threshold"}
    made = SAE(
        **parts,
        kind=kind,
        layer=1,
        site="mlp_post",
        k=5 if kind == "topk" else None,
        apply_b_dec_to_input=False,
    )
    read = SAE.load(made.save(tmp_path))
    agree(read, TheirSAE.load_from_disk(tmp_path))
    assert (read.digest, read.site, read.layer, read.k) == (made.digest, "mlp_post", 1, made.k)


def test_an_autoencoder_of_attention_heads_is_that_of_sae_lens(tmp_path: Path) -> None:
    """It takes hook_z [row pos head dim] there, and here the heads side by side."""
    from sae_lens import SAE as TheirSAE

    parts = {name: value for name, value in weights().items() if name != "threshold"}
    made = SAE(**parts, kind="relu", layer=1, site="attn_z")
    read, other = SAE.load(made.save(tmp_path)), TheirSAE.load_from_disk(tmp_path)
    assert (read.digest, read.hook) == (made.digest, "blocks.1.attn.hook_z")
    assert (SAE.of(other).site, SAE.of(other).digest) == ("attn_z", made.digest)
    h = activations()
    heads = rearrange(h, "row pos (head dim) -> row pos head dim", head=2)
    with torch.no_grad():
        z = other.encode(heads)
        torch.testing.assert_close(read.encode(h), z)
        torch.testing.assert_close(
            rearrange(read.decode(z), "row pos (head dim) -> row pos head dim", head=2),
            other.decode(z),
        )
    wrong = altered(other, tmp_path / "wrong", lambda told: told["metadata"].update(hook_name=HOOK))
    with pytest.raises(SteerlabError, match=f"attention heads .hook_z. but reads {HOOK}"):
        SAE.load(wrong)


def test_16_bit_weights_come_back_as_they_were_rounded(tmp_path: Path) -> None:
    made = jumprelu()
    read = SAE.load(made.save(tmp_path, dtype=torch.float16))
    assert torch.equal(read.W_enc, made.W_enc.half().float())
    assert not torch.equal(read.W_enc, made.W_enc)
    assert load_file(tmp_path / "sae_weights.safetensors")["W_dec"].dtype == torch.float16


def test_a_failed_save_leaves_what_was_there(tmp_path: Path) -> None:
    made = jumprelu()
    made.save(tmp_path)
    large = SAE(
        **weights() | {"b_enc": torch.full((LATENTS,), 1e6)},
        kind="jumprelu",
        layer=2,
        site="resid_post",
    )
    with pytest.raises(SteerlabError, match="b_enc of this autoencoder holds NaN or infinity"):
        large.save(tmp_path, dtype=torch.float16)
    assert SAE.load(tmp_path).digest == made.digest
    (tmp_path / "file").write_text("")
    with pytest.raises(SteerlabError, match="could not write"):
        made.save(tmp_path / "file")
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "cfg.json",
        "file",
        "sae_weights.safetensors",
    ]


def test_two_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    jumprelu(0).save(tmp_path / "a")
    jumprelu(0, layer=3).save(tmp_path / "b")
    shutil.copy(tmp_path / "a" / "cfg.json", tmp_path / "b" / "cfg.json")
    with pytest.raises(SteerlabError, match="do not belong together"):
        SAE.load(tmp_path / "b")


@pytest.mark.parametrize("name", ["W_enc", "b_enc", "W_dec", "b_dec", "threshold"])
def test_the_digest_sees_every_weight(name: str) -> None:
    other = weights()
    other[name].view(-1)[0] += 1e-3
    assert SAE(**other, kind="jumprelu", layer=2, site="resid_post").digest != jumprelu().digest
    assert SAE(**weights(), kind="jumprelu", layer=2, site="resid_post").digest == jumprelu().digest


# ------------------------------------------------------------------------------------ other formats


def gemma_scope(folder: Path) -> None:
    folder.mkdir(parents=True)
    arrays: dict[str, Any] = {name: value.numpy() for name, value in weights().items()}
    np.savez(folder / "params.npz", **arrays)


def gemma_scope_2(folder: Path, hook: str = "model.layers.2.output", **more: Tensor) -> None:
    folder.mkdir(parents=True)
    lower = {name.replace("W_", "w_"): value for name, value in weights().items()}
    save_file(lower | more, folder / "params.safetensors")
    told = {
        "architecture": "jump_relu",
        "model_name": "gemma-v3-1b-pt",
        "hf_hook_point_in": hook,
        "width": LATENTS,
    }
    (folder / "config.json").write_text(json.dumps(told))


def llama_scope(folder: Path) -> None:
    (folder / "checkpoints").mkdir(parents=True)
    own = weights()
    told = {"encoder.weight": own["W_enc"].mT.contiguous(), "encoder.bias": own["b_enc"]}
    told |= {"decoder.weight": own["W_dec"].mT.contiguous(), "decoder.bias": own["b_dec"]}
    save_file(told, folder / "checkpoints" / "final.safetensors")
    config = {"hook_point_in": HOOK, "hook_point_out": HOOK, "d_model": WIDTH, "d_sae": LATENTS}
    config |= {
        "jump_relu_threshold": 0.4,
        "dataset_average_activation_norm": {"in": 2.5, "out": 2.5},
    }
    (folder / "hyperparams.json").write_text(json.dumps(config))


def through_sae_lens(
    top: Path, loader: str, repository: str, folder: str, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """What sae-lens makes of files, the Hub's client replaced by one that finds them on this
    disk."""
    import sae_lens.loading.pretrained_sae_loaders as loaders
    from sae_lens import SAE as TheirSAE

    def local(repo_id: str, filename: str, subfolder: str = "", **_: Any) -> str:
        return str(top / subfolder / filename)

    def shapes(repo_id, filename):
        return {name: list(v.shape) for name, v in load_file(top / filename).items()}

    monkeypatch.setattr(loaders, "hf_hub_download", local)
    monkeypatch.setattr(loaders, "get_safetensors_tensor_shapes", shapes)

    def converter(path: str, device: str, cfg_overrides: dict[str, Any] | None) -> Any:
        sizes = {"d_in": WIDTH, "d_sae": LATENTS, "dtype": "float32"}
        return getattr(loaders, loader)(repository, folder, device, cfg_overrides=sizes)[:2]

    return TheirSAE.load_from_disk(folder, converter=converter)


def test_gemma_scope_is_read_as_sae_lens_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = "layer_2/width_16k/average_l0_5"
    gemma_scope(tmp_path / folder)
    told = ("gemma_2_sae_huggingface_loader", "google/gemma-scope-2b-pt-res", folder)
    other = through_sae_lens(tmp_path, *told, monkeypatch)
    ours = SAE.load(tmp_path / folder, hook=HOOK)
    agree(ours, other)
    assert ours.hook == other.cfg.metadata.hook_name
    assert SAE.load(tmp_path / folder, layer=2).digest == ours.digest
    with pytest.raises(SteerlabError, match="does not say where its autoencoder reads; give hook="):
        SAE.load(tmp_path / folder)


def test_gemma_scope_2_is_read_as_sae_lens_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = "resid_post/layer_2_width_16k_l0_small"
    gemma_scope_2(tmp_path / folder)
    told = ("gemma_3_sae_huggingface_loader", "google/gemma-scope-2-1b-pt", folder)
    other = through_sae_lens(tmp_path, *told, monkeypatch)
    ours = SAE.load(tmp_path / folder)
    agree(ours, other)
    assert (ours.hook, ours.about["model"]) == (other.cfg.metadata.hook_name, "gemma-v3-1b-pt")


def test_llama_scope_is_read_as_sae_lens_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = "Llama3_1-8B-Base-L2R-8x"
    llama_scope(tmp_path / folder)
    told = ("llama_scope_sae_huggingface_loader", "fnlp/Llama3_1-8B-Base-LXR-8x", folder)
    other = through_sae_lens(tmp_path, *told, monkeypatch)
    other.fold_activation_norm_scaling_factor(
        WIDTH**0.5 / 2.5
    )  # from_pretrained does, from its directory
    ours = SAE.load(tmp_path / folder)
    agree(ours, other, exactly=False)
    assert ours.hook == HOOK


# ----------------------------------------------------------------------------------------- refusals


def altered(of: Any, folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A folder of sae-lens whose configuration was changed."""
    of.save_model(folder)
    config = json.loads((folder / "cfg.json").read_text())
    change(config)
    (folder / "cfg.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"normalize_activations": "layer_norm"}, "normalises its inputs by 'layer_norm'"),
        (
            {"normalize_activations": "constant_norm_rescale"},
            "normalises its inputs by 'constant_norm_rescale'",
        ),
        (
            {"normalize_activations": "expected_average_only_in"},
            "was not folded.*fold_activation_norm_scaling_factor",
        ),
        ({"reshape_activations": "hook_z"}, "of attention heads"),
        (
            {"architecture": "gated"},
            "a 'gated' autoencoder; steerlab computes standard, jumprelu, topk",
        ),
        ({"architecture": "transcoder"}, "a 'transcoder' autoencoder"),
        ({"architecture": "batchtopk"}, "save_inference_model"),
        (
            {"d_in": 3, "metadata": {"hook_name": "blocks.2.hook_mlp_in"}},
            "neither reads nor writes; it knows blocks.5",
        ),
        ({"metadata": {}}, "does not say where its autoencoder reads"),
    ],
)
def test_what_cannot_be_computed_is_refused(
    told: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = altered(theirs("jumprelu"), tmp_path, lambda config: config.update(told))
    with pytest.raises(SteerlabError, match=message):
        SAE.load(folder)
    assert SAE.load(altered(theirs("jumprelu"), tmp_path, lambda config: None)).kind == "jumprelu"


def test_a_file_that_scales_its_latents_is_refused_and_one_that_scales_by_one_is_not(
    tmp_path: Path,
) -> None:
    theirs("standard").save_model(tmp_path)
    file = tmp_path / "sae_weights.safetensors"
    own = load_file(file)
    save_file(own | {"scaling_factor": torch.ones(LATENTS)}, file)
    agree(SAE.load(tmp_path), theirs("standard"))
    save_file(own | {"scaling_factor": torch.full((LATENTS,), 1.1)}, file)
    with pytest.raises(SteerlabError, match="scales its latents by scaling_factor"):
        SAE.load(tmp_path)


def test_damaged_files_and_foreign_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SteerlabError, match="there is no folder"):
        SAE.load(tmp_path / "none")
    with pytest.raises(SteerlabError, match="holds no autoencoder: none of cfg.json, params.npz"):
        SAE.load(tmp_path)
    folder = jumprelu().save(tmp_path / "cut")
    file = folder / "sae_weights.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    with pytest.raises(SteerlabError, match="truncated or no safetensors file"):
        SAE.load(folder)
    file.unlink()
    with pytest.raises(SteerlabError, match="there is no file.*beside its configuration"):
        SAE.load(folder)
    (folder / "cfg.json").write_text("{")
    with pytest.raises(SteerlabError, match="is no JSON"):
        SAE.load(folder)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "params.npz", W_enc=np.array([{"a": 1}], dtype=object))
    with pytest.raises(SteerlabError, match="truncated or no npz file.*allow_pickle=False"):
        SAE.load(tmp_path, hook=HOOK)


def test_transcoders_are_refused(tmp_path: Path) -> None:
    gemma_scope_2(tmp_path / "skip", affine_skip_connection=torch.zeros(WIDTH, WIDTH))
    with pytest.raises(SteerlabError, match="transcoder, which writes elsewhere"):
        SAE.load(tmp_path / "skip")
    llama_scope(tmp_path / "llama")
    file = tmp_path / "llama" / "hyperparams.json"
    file.write_text(
        json.dumps(json.loads(file.read_text()) | {"hook_point_out": "blocks.2.hook_mlp_out"})
    )
    with pytest.raises(SteerlabError, match="transcoder, which writes elsewhere"):
        SAE.load(tmp_path / "llama")


def test_the_caller_must_not_contradict_the_file(tmp_path: Path) -> None:
    folder = jumprelu().save(tmp_path)
    assert (
        SAE.load(folder, hook=HOOK, layer=2).hook
        == SAE.load(folder, hook="model.layers.2").hook
        == HOOK
    )
    for told in ({"layer": 1}, {"hook": "blocks.2.hook_resid_pre"}):
        with pytest.raises(
            SteerlabError, match="is an autoencoder of 'blocks.2.hook_resid_post', and"
        ):
            SAE.load(folder, **told)
    with pytest.raises(SteerlabError, match="at layer 2, and layer 1 was given"):
        SAE.load(folder, hook=HOOK, layer=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "gelu"}, "no kind 'gelu'"),
        ({"kind": "relu"}, "a threshold belongs to a jumprelu"),
        ({"threshold": None}, "a threshold belongs to a jumprelu"),
        ({"k": 3}, "k belongs to a topk"),
        ({"kind": "topk", "threshold": None, "k": LATENTS + 1}, "k is between 1 and their number"),
        ({"b_enc": torch.full((LATENTS,), torch.nan)}, "b_enc of this autoencoder holds NaN"),
        ({"site": "hook_z"}, "no site 'hook_z'"),
    ],
)
def test_parts_that_make_no_autoencoder_are_refused(change: dict[str, Any], message: str) -> None:
    told = weights() | {"kind": "jumprelu", "layer": 2, "site": "resid_post"} | change
    with pytest.raises(SteerlabError, match=message):
        SAE(**told)


@pytest.mark.parametrize("site", SITES)
def test_hook_names_and_sites_are_the_same_thing(site: str) -> None:
    assert place_of(hook_name(site, 11)) == (site, 11)


@pytest.mark.parametrize(
    "name",
    ["model.layers.3", "model.layers.3.output", "transformer.h.3", "model.language_model.layers.3"],
)
def test_blocks_of_hugging_face_are_the_stream_after_them(name: str) -> None:
    assert place_of(name) == ("resid_post", 3)


@pytest.mark.parametrize(
    "name",
    [
        "blocks.3.attn.hook_q",
        "blocks.3.hook_mlp_in",
        "hook_embed",
        "blocks.3.hook_resid_post.x",
        "model.layers.3.self_attn.o_proj.input",
        "blocks.-1.hook_resid_post",
    ],
)
def test_other_places_are_refused_with_those_that_there_are(name: str) -> None:
    with pytest.raises(
        SteerlabError,
        match="blocks.5.hook_resid_pre, blocks.5.attn.hook_z, blocks.5.hook_attn_out",
    ):
        place_of(name)


# ---------------------------------------------------------------------------------------- the model


def test_it_is_refused_for_another_width_layer_or_model(polyglot: Model) -> None:
    own = {"model": "steerlab polyglot", "fingerprint": polyglot.fingerprint}
    jumprelu(width=polyglot.width, about=own).need(polyglot)
    jumprelu(width=polyglot.width).need(polyglot)  # nothing is known of its model
    with pytest.raises(
        SteerlabError,
        match=f"reads {WIDTH} numbers, and resid_post of polyglot has {polyglot.width}",
    ):
        jumprelu(about=own).need(polyglot)
    with pytest.raises(
        SteerlabError, match="blocks.40.hook_resid_post, and polyglot has layers 0 to 7"
    ):
        jumprelu(width=polyglot.width, layer=40, about=own).need(polyglot)
    stale = own | {"fingerprint": "0" * 16}
    with pytest.raises(
        SteerlabError, match=f"0000, and polyglot has {polyglot.fingerprint}; .*make rebuild"
    ):
        jumprelu(width=polyglot.width, about=stale).need(polyglot)


def test_activations_of_another_width_are_refused() -> None:
    with pytest.raises(
        SteerlabError, match=f"the activations have 3 numbers each; .* takes {WIDTH}"
    ):
        jumprelu().encode(torch.zeros(2, 3))
    with pytest.raises(SteerlabError, match=f"the latents have 3 numbers each; .* takes {LATENTS}"):
        jumprelu().decode(torch.zeros(2, 3))


# ------------------------------------------------------------------------------------------ readers


@pytest.mark.parametrize("subtracted", [True, False])
@pytest.mark.parametrize("kind", ["jumprelu", "relu"])
def test_a_few_latents_are_read_alone_as_among_all(kind: str, *, subtracted: bool) -> None:
    parts = (
        weights()
        if kind == "jumprelu"
        else {n: v for n, v in weights().items() if n != "threshold"}
    )
    made = SAE(**parts, kind=kind, layer=2, site="resid_post", apply_b_dec_to_input=subtracted)
    units, h = [7, 0, 39], activations()
    encoder, bias, threshold = made.readers(units)
    pre = h @ encoder.mT + bias
    expected = made.encode(h)[..., units]
    assert 0 < (expected > 0).float().mean() < 1
    torch.testing.assert_close(pre.relu() * (pre > threshold), expected)
    assert made.readers([])[0].shape == (0, WIDTH)
    with pytest.raises(SteerlabError, match="no latent 40; this autoencoder has latents 0 to 39"):
        made.readers([1, 40])


def test_latents_of_a_topk_autoencoder_cannot_be_read_alone() -> None:
    with pytest.raises(SteerlabError, match="topk autoencoder.*take a jumprelu one"):
        SAE.of(theirs("topk", k=5)).readers([1])


# -------------------------------------------------------------------------------- folders, releases


def test_a_folder_of_layers_is_read_by_layer(tmp_path: Path) -> None:
    for layer in (10, 2):
        jumprelu(layer, layer=layer).save(tmp_path / f"layer_{layer}")
    (tmp_path / "layer_of_notes").mkdir()
    found = saes(tmp_path)
    assert list(found) == [2, 10]
    assert {layer: sae.digest for layer, sae in found.items()} == {
        n: jumprelu(n, layer=n).digest for n in (2, 10)
    }
    assert list(saes(tmp_path, [10])) == [10]
    with pytest.raises(
        SteerlabError, match="no autoencoder of layer 3; there are those of layers 2, 10"
    ):
        saes(tmp_path, [2, 3])
    with pytest.raises(SteerlabError, match="no layer was named"):
        saes(tmp_path, [])
    with pytest.raises(SteerlabError, match="holds no layer_<number>"):
        saes(tmp_path / "layer_2")
    (tmp_path / "layer_2").rename(tmp_path / "layer_4")
    with pytest.raises(SteerlabError, match="is an autoencoder of 'blocks.2.hook_resid_post'"):
        saes(tmp_path)


def test_unknown_releases_and_ids_are_answered_with_the_nearest() -> None:
    with pytest.raises(
        SteerlabError,
        match="no release 'gemma-scope-2b-pt-res-canon'.*gemma-scope-2b-pt-res-canonical",
    ):
        SAE.from_pretrained("gemma-scope-2b-pt-res-canon", "layer_3/width_16k/canonical")
    with pytest.raises(
        SteerlabError, match="has no id 'layer_3/width_16k'; .*layer_3/width_16k/canonical"
    ):
        SAE.from_pretrained("gemma-scope-2b-pt-res-canonical", "layer_3/width_16k")


def test_without_a_network_it_says_what_it_would_fetch() -> None:
    with pytest.raises(
        SteerlabError,
        match="https://huggingface.co/google/gemma-scope-2b-pt-res is not in the cache",
    ):
        SAE.from_pretrained("gemma-scope-2b-pt-res-canonical", "layer_3/width_16k/canonical")


def test_a_release_is_read_through_sae_lens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repository in sae-lens' own format, which sae-lens takes by its name; only the Hub's
    client is replaced."""
    import sae_lens.loading.pretrained_sae_loaders as loaders
    from huggingface_hub.errors import EntryNotFoundError

    def local(repo_id: str, filename: str, **_: Any) -> str:
        if not (tmp_path / filename).exists():
            raise EntryNotFoundError(filename)
        return str(tmp_path / filename)

    of = theirs("jumprelu")
    of.save_model(tmp_path / "some id")
    monkeypatch.setattr(loaders, "hf_hub_download", local)
    ours = SAE.from_pretrained("someone/something", "some id")
    agree(ours, of)
    assert (ours.about["release"], ours.about["id"]) == ("someone/something", "some id")


def test_what_is_no_autoencoder_is_refused() -> None:
    with pytest.raises(SteerlabError, match="an autoencoder of sae-lens is needed, not Linear"):
        SAE.of(torch.nn.Linear(2, 2))
    of = theirs("jumprelu")
    del of.cfg.metadata.hook_name
    with pytest.raises(
        SteerlabError, match="does not say where it reads; set its cfg.metadata.hook_name"
    ):
        SAE.of(of)


def test_a_folder_is_read_without_sae_lens(tmp_path: Path) -> None:
    jumprelu().save(tmp_path)
    told = (
        "import sys, steerlab.sae; steerlab.sae.SAE.load(sys.argv[1]); print('sae_lens' in "
        "sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", told, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
