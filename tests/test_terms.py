"""The table of languages is whole, and wrong words raise and say which are right; no two
purposes draw alike."""

import ast
import pickle
from dataclasses import FrozenInstanceError
from pathlib import Path
from types import SimpleNamespace

import langcodes
import pytest
import torch

import steerlab.core.languages
from steerlab.core.errors import SteerlabError
from steerlab.core.languages import _ISO3, _NAMES, LANGUAGES, Language, families, language
from steerlab.core.random import generator
from steerlab.core.sites import SITES, hook_name, lens_hook, lens_width, site_of
from steerlab.core.tokens import has_bos

PACKAGE = Path(steerlab.__file__).parent

# What langcodes said when this was written. Names stand in prompts, and codes and scripts decide
# what an identifier's labels mean, so that none may change with a version of it.
RECORDED = """
    en eng Latn English | de deu Latn German | nl nld Latn Dutch | sv swe Latn Swedish
    da dan Latn Danish | no nob Latn Norwegian | af afr Latn Afrikaans | es spa Latn Spanish
    fr fra Latn French | it ita Latn Italian | pt por Latn Portuguese | ro ron Latn Romanian
    ca cat Latn Catalan | ru rus Cyrl Russian | uk ukr Cyrl Ukrainian | bg bul Cyrl Bulgarian
    pl pol Latn Polish | cs ces Latn Czech | sk slk Latn Slovak | hu hun Latn Hungarian
    fi fin Latn Finnish | et est Latn Estonian | tr tur Latn Turkish | kk kaz Cyrl Kazakh
    hi hin Deva Hindi | ur urd Arab Urdu | bn ben Beng Bengali | fa fas Arab Persian
    ja jpn Jpan Japanese | ko kor Kore Korean | zh zho Hans Chinese | bo bod Tibt Tibetan
    vi vie Latn Vietnamese | id ind Latn Indonesian | tl tgl Latn Tagalog | ar ara Arab Arabic
    he heb Hebr Hebrew | mt mlt Latn Maltese | el ell Grek Greek | sw swh Latn Swahili
    ka kat Geor Georgian | th tha Thai Thai
"""


def test_no_language_is_lost_and_none_is_renamed() -> None:
    recorded = [
        tuple(cell.split()) for line in RECORDED.strip().splitlines() for cell in line.split("|")
    ]
    found = [(one.iso, one.iso3, one.script, one.name) for one in LANGUAGES.values()]
    assert found == recorded


def test_only_what_langcodes_says_otherwise_is_overridden() -> None:
    for iso, code in _ISO3.items():
        assert langcodes.Language.get(iso).to_alpha3() != code
    for iso, name in _NAMES.items():
        assert langcodes.Language.get(iso).language_name() != name
    assert Language("cy", "Celtic").name == "Welsh", "a new language needs its branch alone"
    assert Language("tl", "").name != langcodes.Language.get("tl").language_name(), "Filipino"


def test_a_language_is_its_code_and_branch() -> None:
    asked, fresh = language("de"), Language("de", "Germanic")
    assert asked.name == "German"
    assert (asked, hash(asked)) == (fresh, hash(fresh)), "what was looked up changes nothing"
    assert pickle.loads(pickle.dumps(asked)) == fresh
    with pytest.raises(FrozenInstanceError):
        fresh.iso = "en"  # type: ignore[misc]


def test_codes_are_unique_and_of_their_standard_length() -> None:
    assert {len(entry.iso) for entry in LANGUAGES.values()} == {2}
    assert {len(entry.iso3) for entry in LANGUAGES.values()} == {3}
    assert {len(entry.script) for entry in LANGUAGES.values()} == {4}
    for name in ("iso", "iso3", "name"):
        assert len({getattr(entry, name) for entry in LANGUAGES.values()}) == len(LANGUAGES), name
    assert all(iso == entry.iso for iso, entry in LANGUAGES.items())


def test_families_are_in_order_and_known() -> None:
    assert families(["de", "es", "ru", "sv"]) == ["Germanic", "Romance", "Slavic", "Germanic"]
    assert (language("uk").name, language("uk").iso3, language("uk").script) == (
        "Ukrainian",
        "ukr",
        "Cyrl",
    )


@pytest.mark.parametrize("code", ["xx", "EN", "", "eng"])
def test_an_unknown_code_lists_the_known_ones(code: str) -> None:
    with pytest.raises(
        SteerlabError, match=f"unknown language code '{code}'; known codes: en de nl .* th$"
    ):
        language(code)
    with pytest.raises(SteerlabError, match="unknown language code"):
        families(["en", code])


def test_hook_names_are_those_of_transformer_lens() -> None:
    named = ["hook_resid_pre", "attn.hook_z", "hook_attn_out", "hook_resid_mid"]
    named += ["mlp.hook_pre", "mlp.hook_post", "hook_mlp_out", "hook_resid_post"]
    assert [hook_name(site, 5) for site in SITES] == [f"blocks.5.{name}" for name in named]
    with pytest.raises(
        SteerlabError, match="there is no site 'hook_z'; the sites are resid_pre, attn_z, attn_out"
    ):
        hook_name("hook_z", 5)


def test_hook_names_are_read_back() -> None:
    for site in SITES:
        assert site_of(hook_name(site, 12)) == (site, 12)
    for name in ("blocks.3.hook_attn_in", "blocks.3.attn.hook_zz", "hook_embed", "blocks.x.hook_z"):
        assert site_of(name) is None


def test_plain_hooks_of_heads_and_of_the_middle() -> None:
    """What is at `hook_z` lies flat for the function and has its heads back; what is at
    `hook_resid_mid` is changed where it is, and what the function saw stays."""
    heads, seen = torch.arange(24.0).view(1, 2, 3, 4), list[torch.Tensor]()

    def double(h: torch.Tensor) -> torch.Tensor:
        seen.append(h)
        return 2 * h

    assert torch.equal(lens_hook("attn_z", double)(heads, hook=None), 2 * heads)
    assert torch.equal(seen[0], torch.arange(24.0).view(1, 2, 12))
    stream, before = torch.ones(1, 2, 3), torch.ones(1, 2, 3)
    assert lens_hook("resid_mid", double)(stream, hook=None) is stream
    assert torch.equal(stream, 2 * before)
    assert torch.equal(seen[1], before)
    assert torch.equal(lens_hook("attn_out", double)(before, hook=None), 2 * before)
    assert torch.equal(before, torch.ones(1, 2, 3)), "elsewhere a new tensor is returned"
    for site in SITES:
        h = torch.ones(1, 2, 3, 4) if site == "attn_z" else torch.ones(1, 2, 3)
        assert lens_hook(site, lambda h: None)(h, hook=None) is None


def test_widths_by_the_configuration_of_transformer_lens() -> None:
    cfg = SimpleNamespace(d_model=6, n_heads=4, d_head=3, d_mlp=20, num_experts=None)
    wide = {"attn_z": 12, "mlp_pre": 20, "mlp_post": 20}
    assert {site: lens_width(cfg, site) for site in SITES} == dict.fromkeys(SITES, 6) | wide
    assert lens_width(SimpleNamespace(d_model=6), "mlp_pre") is None
    cfg.num_experts = 2
    assert lens_width(cfg, "mlp_out") == 6
    with pytest.raises(SteerlabError, match="mixture of experts, which has no sites mlp_pre"):
        lens_width(cfg, "mlp_pre")


@pytest.mark.parametrize(
    ("bos", "eos", "in_its_files", "own"),
    [
        ("<s>", "</s>", "<s>", True),
        ("<|endoftext|>", "<|endoftext|>", "<|endoftext|>", True),  # GPT-2's and Pythia's
        ("<|endoftext|>", "<|endoftext|>", None, False),  # Qwen's in TransformerLens
        (None, "<|endoftext|>", None, False),
        ("<s>", "</s>", None, True),  # the user's
    ],
)
def test_an_eos_in_place_of_bos_is_none(
    bos: str | None, eos: str, in_its_files: str | None, own: bool
) -> None:
    number = None if bos is None else 1
    files = {} if in_its_files is None else {"bos_token": in_its_files}
    assert (
        has_bos(
            SimpleNamespace(bos_token=bos, bos_token_id=number, eos_token=eos, init_kwargs=files)
        )
        == own
    )


def purposes() -> list[str]:
    """The words that the package gives to `generator`, each of which must be one that can be
    searched for."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id == "generator"
            ):
                assert isinstance(node.args[0], ast.Constant), (
                    f"{path.name}:{node.lineno} hides its purpose"
                )
                found.append(str(node.args[0].value))
    return found


def test_no_two_purposes_draw_alike_whatever_the_seeds() -> None:
    """Nor like a plain seed; a seed that is added to a number of the purpose's own would draw
    like a neighbour's."""
    first = lambda rng: tuple(torch.randint(2**62, (3,), generator=rng).tolist())  # noqa: E731
    seeds, used = range(21), purposes()
    assert len(used) == len(set(used)) >= 5
    streams = [first(generator(purpose, seed)) for purpose in used for seed in seeds]
    streams += [first(torch.Generator().manual_seed(seed)) for seed in seeds]
    assert len(set(streams)) == len(streams) == 21 * (len(used) + 1)
    assert streams[: len(used) * 21] == [
        first(generator(purpose, seed)) for purpose in used for seed in seeds
    ]
    salted = {
        first(torch.Generator().manual_seed(salt + seed)) for salt in (121, 122) for seed in seeds
    }
    assert len(salted) < 2 * 21, "the check itself must be able to fail"


def test_no_seed_is_added_to_a_number() -> None:
    sums = [
        f"{path.name}:{node.lineno}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if node.func.attr in ("manual_seed", "default_rng")
        and any(isinstance(arg, ast.BinOp) and isinstance(arg.op, ast.Add) for arg in node.args)
    ]
    assert sums == []
