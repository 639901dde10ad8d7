"""The table of languages is whole, and wrong words raise and say which are right."""

from types import SimpleNamespace

import pytest

from steerlab.terms import LANGUAGES, SITES, SteerlabError, families, has_bos, hook_name, language


def test_codes_are_unique_and_of_their_standard_length() -> None:
    assert {len(entry.iso) for entry in LANGUAGES.values()} == {2}
    assert {len(entry.iso3) for entry in LANGUAGES.values()} == {3}
    assert {len(entry.script) for entry in LANGUAGES.values()} == {4}
    for name in ("iso", "iso3", "name"):
        assert len({getattr(entry, name) for entry in LANGUAGES.values()}) == len(LANGUAGES), name
    assert all(iso == entry.iso for iso, entry in LANGUAGES.items())


def test_families_are_in_order_and_known() -> None:
    assert families(["de", "es", "ru", "sv"]) == ["Germanic", "Romance", "Slavic", "Germanic"]
    assert (language("uk").name, language("uk").iso3, language("uk").script) == ("Ukrainian", "ukr", "Cyrl")


@pytest.mark.parametrize("code", ["xx", "EN", "", "eng"])
def test_an_unknown_code_lists_the_known_ones(code: str) -> None:
    with pytest.raises(SteerlabError, match=f"unknown language code '{code}'; known codes: en de nl .* th$"):
        language(code)
    with pytest.raises(SteerlabError, match="unknown language code"):
        families(["en", code])


def test_hook_names_are_those_of_transformer_lens() -> None:
    named = ["hook_resid_pre", "hook_resid_post", "mlp.hook_pre", "mlp.hook_post"]
    assert [hook_name(site, 5) for site in SITES] == [f"blocks.5.{name}" for name in named]
    with pytest.raises(SteerlabError, match="there is no site 'resid_mid'; the sites are resid_pre, resid_post"):
        hook_name("resid_mid", 5)


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
def test_an_eos_in_place_of_bos_is_none(bos: str | None, eos: str, in_its_files: str | None, own: bool) -> None:  # noqa: FBT001
    number = None if bos is None else 1
    files = {} if in_its_files is None else {"bos_token": in_its_files}
    assert has_bos(SimpleNamespace(bos_token=bos, bos_token_id=number, eos_token=eos, init_kwargs=files)) == own
