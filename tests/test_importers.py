"""Released files become Directions: numbers, provenance, and a message for each file that is
none."""

import json
import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from steerlab.cli import main
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.languages import language
from steerlab.estimate.released import clas_bench, language_means

GOLDEN = json.loads((Path(__file__).parent / "golden" / "clas-bench.json").read_text("utf-8"))
LANGS = ("de", "en")


def recorded(kind: str, iso: str) -> Tensor:
    """[layer column]: some numbers of a released file."""
    return torch.tensor(GOLDEN[kind][iso])


def save(folder: Path, kind: str, iso: str, rows: Tensor, *, model: str = "llama") -> Path:
    """A file of the form of the release."""
    if kind == "probe":
        layers = {
            k: OrderedDict(weight=row[None], bias=torch.zeros(1)) for k, row in enumerate(rows)
        }
        held: dict[str, Any] = {"probes": layers, "negative_languages": GOLDEN["negatives"][iso]}
    elif kind == "lda":
        held = {
            "steering_vectors": rows,
            "negative_languages": GOLDEN["negatives"][iso],
            "lda_results": {0: {}},
        }
    else:
        held = {
            "steering_vectors": rows,
            "num_tokens": GOLDEN["tokens"][iso],
            "token_counts": torch.ones(len(rows)),
        }
    folder.mkdir(exist_ok=True)
    torch.save(held, folder / f"{kind}.{iso}.{model}")
    return folder / f"{kind}.{iso}.{model}"


def save_means(file: Path, means: Tensor, **header: str) -> Path:
    about = {
        "langs": ",".join(LANGS),
        "site": "resid_post (output of block k)",
        "model": "a model",
    } | header
    save_file({"means": means}, file, metadata=about)
    return file


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A folder like the release, with the recorded numbers of two languages and every kind."""
    for kind in ("vector", "lda", "probe"):
        for iso in LANGS:
            save(tmp_path / "released", kind, iso, recorded(kind, iso))
    return tmp_path / "released"


# ------------------------------------------------------------------------------------------ numbers


def test_the_basis_of_released_means_is_what_each_holds_beyond_all(tmp_path: Path) -> None:
    """A whole mean holds what all languages share, which no direction may."""
    shared = 50 * torch.nn.functional.normalize(torch.arange(1.0, 9.0), dim=0)
    own = torch.eye(8)[:3]
    for lang, row in zip(("de", "en", "es"), own, strict=True):
        rows = (shared + row).expand(2, 8).contiguous()
        held = {"steering_vectors": rows, "num_tokens": 9, "token_counts": torch.ones(2)}
        torch.save(held, tmp_path / f"vector.{lang}.llama")
    fit = clas_bench(tmp_path)
    expected = torch.nn.functional.normalize(own - own.mean(0), dim=-1)
    assert fit.langs == ("de", "en", "es")
    for layer in range(2):
        assert torch.allclose(fit.basis[:, layer, 0], expected, atol=1e-4)


def test_released_vectors_equal_the_rows_of_the_means_file(released: Path, tmp_path: Path) -> None:
    """Of the true files too: the numbers were recorded from both."""
    means = torch.tensor([GOLDEN["means"][iso] for iso in LANGS]).half()
    stacked = language_means(save_means(tmp_path / "means.safetensors", means))
    ours = clas_bench(released)
    assert ours.langs == stacked.langs == LANGS
    for place, iso in enumerate(LANGS):
        assert torch.equal(ours.vectors[place].half(), stacked.vectors[place].half())
        torch.testing.assert_close(ours.vectors[place], recorded("vector", iso), rtol=0, atol=0)
    assert not torch.equal(ours.vectors[0].half(), stacked.vectors[1].half())
    assert not torch.equal(ours.vectors, stacked.vectors), (
        "the release has more digits than the float16 file"
    )


def test_differences_of_vectors_are_diffmean(released: Path) -> None:
    found = clas_bench(released)
    step = found.between("en", "de")
    difference = recorded("vector", "de") - recorded("vector", "en")
    torch.testing.assert_close(step.unit * step.gap[:, None], difference)
    assert (found.estimator, found.site, found.layers) == ("diffmean", "resid_post", (0, 1, 2))


@pytest.mark.parametrize("kind", ["lda", "probe"])
def test_a_target_keeps_its_own_direction(released: Path, kind: str) -> None:
    """The paper pushes along the target's vector alone; strength is still in gaps of the means."""
    found = clas_bench(released, kind=kind)
    step = found.between("en", "de")
    own = recorded(kind, "de")
    torch.testing.assert_close(step.basis[:, 0], own / own.norm(dim=1, keepdim=True))
    difference = recorded("vector", "de") - recorded("vector", "en")
    torch.testing.assert_close(step.gap, difference.norm(dim=1))
    torch.testing.assert_close(found.vectors[0], own)
    assert (step.unit - step.basis[:, 0]).norm() > 0.1, "which is not the difference of two"


def test_provenance_survives_the_file(released: Path, tmp_path: Path) -> None:
    made = clas_bench(released, kind="lda").save(tmp_path / "lda.safetensors")
    about = Directions.load(made).provenance
    assert about["estimator"] == "lda"
    assert about["model"] == {"name": "meta-llama/Llama-3.1-8B-Instruct"}
    assert about["negatives"] == GOLDEN["negatives"]
    assert about["corpus"]["tokens"] == GOLDEN["tokens"]
    assert sorted(about["files"]) == ["lda.de.llama", "lda.en.llama"]
    assert "CLaS-Bench" in about["source"]
    assert "negatives" not in clas_bench(released).provenance


def test_of_two_models_one_is_chosen(released: Path) -> None:
    for iso in LANGS:
        save(released, "vector", iso, 2 * recorded("vector", iso), model="aya")
    with pytest.raises(SteerlabError, match="holds vector files of aya and llama; say which model"):
        clas_bench(released)
    found = clas_bench(released, model="aya")
    torch.testing.assert_close(found.vectors[0], 2 * recorded("vector", "de"))
    assert found.provenance["model"]["name"] == "CohereLabs/aya-expanse-8b"


def test_the_command_writes_what_the_call_returns(
    released: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "probe.safetensors"
    words = ["import", "clas-bench", str(released), "-o", str(out)]
    assert main([*words, "--kind", "probe"]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert torch.equal(Directions.load(out).vectors, clas_bench(released, kind="probe").vectors)
    means = save_means(tmp_path / "means.safetensors", torch.randn(2, 3, 5))
    assert main(["import", "means", str(means), "-o", str(out)]) == 0
    assert torch.equal(Directions.load(out).means, language_means(means).means)
    assert main([*words, "--kind", "sae"]) == 2
    assert "kind 'sae' are not known; the kinds are vector, lda, probe" in capsys.readouterr().err


def test_every_released_language_has_a_family_and_a_script() -> None:
    released = (
        "af ar bn bo cs da de el en es fa fr hi id it ja ka kk ko mt nl no pl pt ro ru sk sv sw th "
        "tl tr uk ur vi zh"
    )
    known = {iso: language(iso) for iso in released.split()}
    assert len(known) == 36
    assert [known[iso].family for iso in "af ur bn tl bo mt kk ka th".split()] == [
        "Germanic",
        "Indo-Aryan",
        "Indo-Aryan",
        "Austronesian",
        "Sino-Tibetan",
        "Semitic",
        "Turkic",
        "Kartvelian",
        "Kra-Dai",
    ]
    assert {known[iso].script for iso in ("fa", "ur", "ar")} == {"Arab"}


# ---------------------------------------------------------------------------------------- bad input


class Trap:
    """What a hostile file would run."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("echo sprung > trap",)


def test_a_file_that_would_run_code_is_not_read(
    released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"steering_vectors": Trap()}, released / "vector.de.llama")
    with pytest.raises(
        SteerlabError, match=r"vector.de.llama is no whole file of tensors.*nothing in it was run"
    ):
        clas_bench(released)
    assert not (tmp_path / "trap").exists()


def spoil(file: Path, held: Any) -> None:
    torch.save(held, file)


@pytest.mark.parametrize(
    ("spoiled", "kind", "message"),
    [
        (
            lambda folder: (folder / "vector.de.llama").write_bytes(b"not tensors"),
            "vector",
            "no whole file of tensors",
        ),
        (
            lambda folder: (folder / "vector.de.llama").write_bytes(b""),
            "vector",
            "no whole file of tensors",
        ),
        (
            lambda folder: spoil(folder / "vector.de.llama", [1, 2]),
            "vector",
            "holds a list; CLaS-Bench's files hold",
        ),
        (
            lambda folder: (folder / "lda.de.llama").write_bytes(
                (folder / "probe.de.llama").read_bytes()
            ),
            "lda",
            "lda.de.llama holds probes, negative_languages, and no steering_vectors .*another kind",
        ),
        (
            lambda folder: (folder / "probe.de.llama").write_bytes(
                (folder / "lda.de.llama").read_bytes()
            ),
            "probe",
            "probe.de.llama holds .*no probes: {layer: {weight",
        ),
        (
            lambda folder: spoil(
                folder / "probe.de.llama", {"probes": {1: {"weight": torch.ones(1, 11)}}}
            ),
            "probe",
            "no probes: {layer: {weight",
        ),
        (
            lambda folder: save(folder, "vector", "en", torch.ones(3, 7)),
            "vector",
            "vector.en.llama is 3 layers x 7 wide, but vector.de.llama is 3 x 11",
        ),
        (
            lambda folder: save(folder, "vector", "en", torch.ones(4, 11)),
            "lda",
            "vector.en.llama is 4 layers x 11 wide, but lda.de.llama is 3 x 11",
        ),
        (
            lambda folder: (folder / "vector.en.llama").unlink(),
            "probe",
            "needs vector.en.llama beside it",
        ),
        (
            lambda folder: (folder / "vector.xx.llama").touch(),
            "vector",
            "unknown language code 'xx'",
        ),
        (
            lambda folder: save(folder, "vector", "en", torch.full((3, 11), torch.nan)),
            "vector",
            "NaN or infinity",
        ),
    ],
)
def test_a_wrong_file_says_what_is_wrong(
    released: Path, spoiled: Any, kind: str, message: str
) -> None:
    clas_bench(released, kind=kind)
    spoiled(released)
    with pytest.raises(SteerlabError, match=message):
        clas_bench(released, kind=kind)


def test_a_wrong_folder_or_kind_says_what_there_is(released: Path, tmp_path: Path) -> None:
    with pytest.raises(
        SteerlabError, match="kind 'pca' are not known; the kinds are vector, lda, probe"
    ):
        clas_bench(released, kind="pca")
    with pytest.raises(
        SteerlabError, match=r"there is no folder .*nowhere; give the one that holds .*lda.de.llama"
    ):
        clas_bench(tmp_path / "nowhere", kind="lda")
    with pytest.raises(
        SteerlabError,
        match=r"no vector.<language>.aya; it has lda.\*.llama, probe.\*.llama, vector",
    ):
        clas_bench(released, model="aya")
    with pytest.raises(SteerlabError, match="it has no such files"):
        clas_bench(tmp_path)


@pytest.mark.parametrize(
    ("tensors", "header", "message"),
    [
        ({"mean": torch.ones(2, 3, 4)}, {}, "holds tensors mean, means of none, and 2 languages"),
        ({"means": torch.ones(3, 3, 4)}, {}, r"means of shape \(3, 3, 4\), and 2 languages"),
        ({"means": torch.ones(2, 3)}, {}, r"means of shape \(2, 3\)"),
        ({"means": torch.ones(2, 3, 4)}, {"langs": "de,xx"}, "unknown language code 'xx'"),
        (
            {"means": torch.ones(2, 3, 4)},
            {"site": "mlp"},
            "site is 'mlp'; the sites are resid_pre, attn_z",
        ),
    ],
)
def test_a_wrong_file_of_means_says_what_is_wrong(
    tmp_path: Path, tensors: dict[str, Tensor], header: dict[str, str], message: str
) -> None:
    save_file(
        tensors,
        tmp_path / "means.safetensors",
        metadata={"langs": "de,en", "site": "resid_post"} | header,
    )
    with pytest.raises(SteerlabError, match=message):
        language_means(tmp_path / "means.safetensors")


def test_means_from_no_safetensors(tmp_path: Path) -> None:
    with pytest.raises(SteerlabError, match="there is no file"):
        language_means(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"xx")
    with pytest.raises(SteerlabError, match="truncated or no safetensors file"):
        language_means(tmp_path / "bad.safetensors")
