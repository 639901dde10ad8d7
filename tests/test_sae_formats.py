"""Autoencoders of other formats, folders and releases are read as sae-lens reads them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from sae_weights import (
    HOOK,
    LATENTS,
    WIDTH,
    agree,
    gemma_scope,
    gemma_scope_2,
    jumprelu,
    llama_scope,
    theirs,
)
from safetensors.torch import load_file

from steerlab.core.errors import SteerlabError
from steerlab.sae import SAE, saes

# ------------------------------------------------------------------------------------ other formats


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


GEMMA_270M = ("gemma-scope-2-270m-pt-res", "layer_12_width_16k_l0_medium")


def test_gemma_scope_2_of_the_270m_model_is_known_up_to_its_download() -> None:
    with pytest.raises(SteerlabError) as raised:
        SAE.from_pretrained(*GEMMA_270M)
    path = "resid_post/layer_12_width_16k_l0_medium"
    repository = "https://huggingface.co/google/gemma-scope-2-270m-pt"
    assert f"{path} of {repository} is not in the cache" in str(raised.value)
    with pytest.raises(SteerlabError, match="has no id 'layer_4_.*; the nearest of .* are layer_"):
        SAE.from_pretrained(GEMMA_270M[0], "layer_4_width_16k_l0_medium")


def test_gemma_scope_2_of_the_270m_model_is_read_from_the_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through sae-lens' own directory and loader; only the Hub's client is replaced."""
    import sae_lens.loading.pretrained_sae_loaders as loaders

    folder = tmp_path / "resid_post" / GEMMA_270M[1]
    gemma_scope_2(folder, "model.layers.12.output")
    asked = set()

    def local(repo_id: str, filename: str, subfolder: str = "", **_: Any) -> str:
        asked.add(repo_id)
        return str(tmp_path / subfolder / filename)

    def shapes(repo_id: str, filename: str) -> dict[str, list[int]]:
        return {name: list(v.shape) for name, v in load_file(tmp_path / filename).items()}

    monkeypatch.setattr(loaders, "hf_hub_download", local)
    monkeypatch.setattr(loaders, "get_safetensors_tensor_shapes", shapes)
    ours = SAE.from_pretrained(*GEMMA_270M)
    assert asked == {"google/gemma-scope-2-270m-pt"}
    assert ours.hook == "blocks.12.hook_resid_post"
    assert (ours.about["release"], ours.about["id"]) == GEMMA_270M
    plain = SAE.load(folder)
    for name in ("W_enc", "b_enc", "W_dec", "b_dec", "threshold"):
        assert torch.equal(getattr(ours, name), getattr(plain, name))


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
