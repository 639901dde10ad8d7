"""The table of languages is whole, and wrong words raise and say which are right; no two
purposes draw alike."""

import ast
import pickle
import re
from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from pathlib import Path
from types import SimpleNamespace

import langcodes
import pytest
import torch

import steerlab as sl
import steerlab.core.languages
from steerlab.core.errors import SteerlabError
from steerlab.core.languages import (
    _FAMILY_OF,
    _ISO3,
    _NAMES,
    _OTHER_BRANCHES,
    LANGUAGES,
    Language,
    _code_of,
    _other,
    all_families,
    code_of,
    families,
    is_language,
    is_plainly_language,
    language,
    own_scripts,
)
from steerlab.core.random import generator
from steerlab.core.sites import SITES, hook_name, lens_hook, lens_width, site_of
from steerlab.core.tokens import has_bos
from steerlab.figures.style import family_order, family_style
from steerlab.scores.confusion import script_mixing

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


@pytest.mark.parametrize(
    ("name", "code"),
    [
        *(("EN", "en"), ("eng", "en"), ("eng_Latn", "en"), ("en-GB", "en"), ("de-1996", "de")),
        *(("yor", "yo"), ("yor_Latn", "yo"), ("ta", "ta"), ("rw", "rw"), ("kin", "rw")),
        *(("fil", "tl"), ("tgl", "tl"), ("pt_BR", "pt"), ("zh-cn", "zh"), ("zho_Hans", "zh")),
        *(("zh-Hant-TW", "zh"), ("cmn_Hani", "zh"), ("iw", "he"), ("mo", "ro"), ("jw", "jv")),
        *(("nob_Latn", "no"), ("nno_Latn", "nn"), ("arb_Arab", "ar"), ("arz_Arab", "arz")),
        *(("azj_Latn", "az"), ("als_Latn", "sq"), ("zsm", "ms"), ("kmr_Latn", "ku")),
        # In a script that is not its own a language keeps it.
        *(("hin_Latn", "hin_Latn"), ("hi-Latn", "hin_Latn"), ("arb_Latn", "arb_Latn")),
        *(("srp_Cyrl", "sr"), ("sr-Latn", "srp_Latn"), ("kas_Deva", "kas_Deva")),
        # As long as nobody asks, these stay what they say: not Persian, not Serbian.
        *(("prs_Arab", "prs"), ("sh", "sh"), ("hbs", "sh"), ("wuu", "wuu")),
        *(("xx", None), ("zxx", None), ("qaa", None), ("README", None), ("", None)),
    ],
)
def test_a_language_is_known_by_any_of_its_codes(name: str, code: str | None) -> None:
    assert code_of(name) == code
    assert is_language(name) == (code is not None)
    if code is not None:
        assert language(name) == language(code)
        assert language(name).iso == code
        assert code_of(code) == code


def test_every_code_with_a_family_is_the_one_that_its_language_goes_by() -> None:
    assert [code for code in _FAMILY_OF if code_of(code) != code or code in LANGUAGES] == []
    assert {language(code).family for code in _FAMILY_OF} == set(_OTHER_BRANCHES)


def test_what_is_not_known_of_a_language_says_so() -> None:
    ghotuo = language("aaa")
    assert (ghotuo.name, ghotuo.family, ghotuo.script) == ("Ghotuo", "unknown", "unknown")
    assert (language("ta").name, language("ta").script) == ("Tamil", "Taml")
    assert (language("yor").family, language("yo").script) == ("Niger-Congo", "Latn")
    romanised = language("hin_Latn")
    assert (romanised.name, romanised.script, romanised.family, romanised.iso3) == (
        "Hindi (Latin)",
        "Latn",
        "Indo-Aryan",
        "hin",
    )
    assert own_scripts("aaa") == ()
    assert own_scripts("zh") == ("Hans", "Hant", "Hani")


@pytest.fixture
def table() -> Iterator[None]:
    """The table of languages, as it was afterwards."""
    before = dict(LANGUAGES)
    yield
    LANGUAGES.clear()
    LANGUAGES.update(before)
    _code_of.cache_clear()
    _other.cache_clear()


@pytest.mark.usefixtures("table")
def test_a_language_of_ones_own_is_added() -> None:
    assert code_of("ownlang") is None
    with pytest.raises(SteerlabError, match="unknown language code 'xq'"):
        language("xq")
    made = sl.add_language("xq", family="Invented", script="Ethi", name="Xq")
    assert language("xq") is made
    assert (made.name, made.script, made.family, made.iso3) == ("Xq", "Ethi", "Invented", "xq")
    assert all_families()[-2:] == ("Invented", "unknown")
    assert sl.add_language("ownlang").name == "ownlang"
    # More of one that is known, of which the rest stays.
    sl.add_language("rw", family="Bantu")
    assert (language("kin").family, language("rw").name) == ("Bantu", "Kinyarwanda")
    assert sl.add_language("rw", name="Rwanda").family == "Bantu"
    # Pictures take it like any other.
    assert family_order(["xq", "rw", "en"])[0] == "en"
    assert len({family_style(name) for name in ("Invented", "Bantu", "Germanic")}) == 3
    assert script_mixing("abc", "xq") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"code": "R W"}, "is no code of a language; give two to eight small letters"),
        ({"code": ""}, "is no code of a language"),
        ({"code": "rw", "script": "latin"}, "'latin' is no code of a script; give one such as"),
        ({"code": "rw", "script": "Abcd"}, "'Abcd' is no code of a script"),
    ],
)
def test_a_language_of_ones_own_needs_codes(words: dict[str, str], message: str) -> None:
    with pytest.raises(SteerlabError, match=message):
        sl.add_language(**words)


def test_words_that_are_codes_by_chance_are_no_languages_in_a_table() -> None:
    assert all(map(is_language, ("lda", "pca", "add", "all")))
    assert not any(map(is_plainly_language, ("lda", "pca", "add", "all", "eng", 3, None)))
    assert all(map(is_plainly_language, ("en", "ta", "ceb", "hin_Latn")))


def test_families_are_in_order_and_known() -> None:
    assert families(["de", "es", "ru", "sv"]) == ["Germanic", "Romance", "Slavic", "Germanic"]
    assert (language("uk").name, language("uk").iso3, language("uk").script) == (
        "Ukrainian",
        "ukr",
        "Cyrl",
    )


@pytest.mark.parametrize("code", ["xx", "", "q", "zzz", "und", "qaa", "english", "e n", "en\n"])
def test_an_unknown_code_lists_the_known_ones(code: str) -> None:
    with pytest.raises(
        SteerlabError,
        match=rf"unknown language code {re.escape(repr(code))}; known codes: en de nl .* th, and "
        r"those of every other language in ISO 639; add_language adds one",
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
