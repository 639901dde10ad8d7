"""What cannot be computed, or does not belong together, is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sae_weights import (
    HOOK,
    LATENTS,
    WIDTH,
    agree,
    altered,
    gemma_scope_2,
    jumprelu,
    llama_scope,
    theirs,
    weights,
)
from safetensors.torch import load_file, save_file

from steerlab.core.errors import SteerlabError
from steerlab.core.sites import SITES, hook_name
from steerlab.sae import SAE
from steerlab.sae.hooks import place_of

# ----------------------------------------------------------------------------------------- refusals


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
