"""Each prompt form is what its name says, with one BOS and never without tokens."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from steerlab.core.errors import SteerlabError
from steerlab.core.languages import LANGUAGES
from steerlab.engine.prompts import FORMS, encode, instruction, pad, prompt, read_form
from steerlab.models.loading import PACKAGED
from steerlab.scores.langid import identifier

WITH_BOS = (
    "{{ bos_token }}{% for message in messages %}[{{ message['role'] }}] {{ message['content'] "
    "}}\n{% endfor %}"
)
POLYGLOT = AutoTokenizer.from_pretrained(PACKAGED)


def chatty(template: str) -> Any:
    tokenizer = copy.deepcopy(POLYGLOT)
    tokenizer.chat_template = template
    return tokenizer


def without_bos() -> Any:
    tokenizer = copy.deepcopy(POLYGLOT)
    tokenizer.bos_token = None
    return tokenizer


def test_forms() -> None:
    assert prompt(POLYGLOT, "line", "It rains.") == "It rains.\n"
    asked = prompt(POLYGLOT, "instructed", "Es regnet.", source="de", target="ja")
    assert asked == "German: Es regnet.\nJapanese:"
    template = WITH_BOS + "{% if add_generation_prompt %}[assistant]{% endif %}"
    assert prompt(chatty(template), "chat", "It rains.") == "<s>[user] It rains.\n[assistant]"


def test_wrong_forms_say_what_to_do() -> None:
    with pytest.raises(
        SteerlabError, match=f"no prompt form 'lines'; the forms are {', '.join(FORMS)}"
    ):
        prompt(POLYGLOT, "lines", "It rains.")
    with pytest.raises(SteerlabError, match="'instructed' names the target language; give target="):
        prompt(POLYGLOT, "instructed", "It rains.")
    with pytest.raises(SteerlabError, match="unknown language code 'xx'; known codes"):
        prompt(POLYGLOT, "instructed", "It rains.", target="xx")
    with pytest.raises(
        SteerlabError, match="no chat template; use the prompt form 'line' or 'instructed'"
    ):
        prompt(POLYGLOT, "chat", "It rains.")


SUFFIXED = {
    "english": "Please write your answer in Japanese.",
    "target": "回答は日本語で書いてください。",
    "source": "Bitte schreibe deine Antwort in dieser Sprache: 日本語.",
    "fr": "Merci de rédiger ta réponse dans cette langue : 日本語.",
    "ja": "回答は日本語で書いてください。",
}


@pytest.mark.parametrize("suffix", SUFFIXED)
def test_an_instruction_stands_after_the_text(suffix: str) -> None:
    told: dict[str, Any] = {"source": "de", "target": "ja"}
    asked = f"Warum regnet es? {SUFFIXED[suffix]}"
    assert prompt(POLYGLOT, f"line+{suffix}", "Warum regnet es?", **told) == asked + "\n"
    template = WITH_BOS + "{% if add_generation_prompt %}[assistant]{% endif %}"
    given = [
        prompt(chatty(template), form, "Warum regnet es?", **told)
        for form in (f"chat+{suffix}", "chat")
    ]
    assert given == [f"<s>[user] {asked}\n[assistant]", "<s>[user] Warum regnet es?\n[assistant]"]


def test_the_language_of_an_instruction_is_free_of_source_and_target() -> None:
    """No instruction, one in each language, and the four ways to name its language agree."""
    assert prompt(POLYGLOT, "line+english", "Why?", source="ja", target="de") == prompt(
        POLYGLOT, "line+en", "Why?", source="hu", target="de"
    )
    assert prompt(POLYGLOT, "line+source", "Why?", source="hu", target="de") == prompt(
        POLYGLOT, "line+hu", "Why?", source="ja", target="de"
    )
    assert instruction("hu", "hu") == "Kérlek, magyarul írd meg a válaszodat."
    with pytest.raises(
        SteerlabError, match="'line\\+target' asks for the target language; give target="
    ):
        prompt(POLYGLOT, "line+target", "Why?")


@pytest.mark.parametrize(
    "form", ["chat+", "chat+xx", "+target", "instructed+target", "line+target+de", "chat+Target"]
)
def test_forms_that_do_not_exist_list_those_that_do(form: str) -> None:
    allowed = (
        "the forms are line, instructed, chat; to line and chat .* \\+english, \\+target, "
        "\\+source or \\+ and a"
    )
    with pytest.raises(SteerlabError, match=allowed):
        prompt(chatty(WITH_BOS), form, "It rains.", target="de")
    with pytest.raises(SteerlabError, match=allowed):
        read_form(form)


def test_every_language_asks_for_itself_and_for_others() -> None:
    own = {iso: instruction(iso, iso) for iso in LANGUAGES}
    other = {iso: instruction(iso, "ko" if iso != "ko" else "ja") for iso in LANGUAGES}
    assert len(set(own.values())) == len(set(other.values())) == len(LANGUAGES)
    assert all(
        ("日本語" if iso == "ko" else "Korean" if iso == "en" else "한국어") in text
        for iso, text in other.items()
    )
    named = {iso: instruction("en", iso) for iso in LANGUAGES}
    assert all(LANGUAGES[iso].name in text for iso, text in named.items())
    found = dict(zip(own, identifier().identify(list(own.values())), strict=True))
    # Of one short sentence the small identifier cannot tell these from their nearest relatives.
    near = {"da": "sv", "no": "sv", "af": "nl", "sk": "cs"}
    assert {iso: name for iso, name in found.items() if name != iso}.items() <= near.items()


def test_exactly_one_bos_also_when_the_template_brings_its_own() -> None:
    bos = POLYGLOT.bos_token_id
    given = [
        prompt(chatty(WITH_BOS), "chat", "It rains."),
        prompt(POLYGLOT, "line", "It rains."),
        "<s><s>It rains.",
    ]
    assert POLYGLOT(given[0]).input_ids.count(bos) >= 1, "the template's own BOS is a token"
    for ids in encode(POLYGLOT, given):
        assert (ids[0], ids.count(bos)) == (bos, 1)
        assert len(ids) > 2


def test_the_text_comes_back() -> None:
    lines = ["It rains.\n", "Идёт дождь.\n", "雨が降る。\n"]
    assert [POLYGLOT.decode(ids[1:]) for ids in encode(POLYGLOT, lines)] == lines


def test_no_bos_where_the_tokenizer_has_none() -> None:
    plain = encode(without_bos(), ["It rains.\n"])[0]
    assert [POLYGLOT.bos_token_id, *plain] == encode(POLYGLOT, ["It rains.\n"])[0]


@pytest.mark.parametrize("text", ["", "<s>", "<s><s>"])
def test_a_prompt_without_tokens_is_refused(text: str) -> None:
    with pytest.raises(SteerlabError, match=f"the prompt '{text}' has no tokens; give some text"):
        encode(POLYGLOT, ["It rains.", text])


def test_an_empty_prompt_is_refused_without_a_bos_too() -> None:
    with pytest.raises(SteerlabError, match="has no tokens"):
        encode(without_bos(), [""])
    assert encode(without_bos(), []) == []


@pytest.mark.parametrize("padding", [9, None])
def test_padding_stands_on_the_left(padding: int | None) -> None:
    tokens, mask = pad([[1, 2, 3], [4]], padding, torch.device("cpu"))
    fill = padding or 0
    assert tokens.tolist() == [[1, 2, 3], [fill, fill, 4]]
    assert mask.tolist() == [[True, True, True], [False, False, True]]


# ------------------------------------------------------------------- as the tokenizer itself begins


def beginning_with(*tokens: str) -> Any:
    """The packaged tokenizer, putting other tokens before a text than its BOS."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = copy.deepcopy(POLYGLOT)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|user|>", "<go>"]})
    numbers = [(token, tokenizer.convert_tokens_to_ids(token)) for token in tokens]
    single = " ".join([*tokens, "$A"])
    tokenizer.backend_tokenizer.post_processor = (
        TemplateProcessing(single=single, special_tokens=numbers) if tokens else None
    )
    return tokenizer


@pytest.mark.parametrize("tokens", [(), ("</s>",), ("<s>",), ("<go>", "<s>")])
def test_a_text_begins_as_the_tokenizer_itself_begins_it(tokens: tuple[str, ...]) -> None:
    """XGLM has BOS and begins with the end of a text, BLOOM has it and begins with nothing."""
    tokenizer = beginning_with(*tokens)
    texts = ["It rains.\n", "Идёт дождь.\n"]
    assert encode(tokenizer, texts) == tokenizer(texts).input_ids
    assert encode(tokenizer, texts)[0][: len(tokens)] == tokenizer.convert_tokens_to_ids([*tokens])


def test_a_chat_is_exactly_its_template() -> None:
    """Phi-3's begins with no BOS, though its tokenizer has one."""
    tokenizer = beginning_with("<s>")
    template = "{% for m in messages %}<|user|>{{ m['content'] }}{% endfor %}"
    for start in ("", "<s>"):
        tokenizer.chat_template = start + template
        text = prompt(tokenizer, "chat", "It rains.")
        exact = tokenizer.apply_chat_template(
            [{"role": "user", "content": "It rains."}], tokenize=True, return_dict=False
        )
        assert encode(tokenizer, [text]) == [exact]


def test_thinking_is_off_and_may_be_asked_for() -> None:
    asked = "enable_thinking is not defined or enable_thinking"
    thinks = f"{{{{ messages[0]['content'] }}}}{{% if {asked} %}}<think>{{% endif %}}"
    tokenizer = chatty(thinks)
    assert prompt(tokenizer, "chat", "Hi") == "Hi"
    assert prompt(tokenizer, "chat", "Hi", template={"enable_thinking": True}) == "Hi<think>"


def test_an_option_that_the_template_does_not_read_is_told() -> None:
    tokenizer = chatty("{{ messages[0]['content'] }}{% if effort %} {{ effort }}{% endif %}")
    assert prompt(tokenizer, "chat", "Hi", template={"effort": "low"}) == "Hi low"
    for name in ("enable_thinking", "effor", "effort2"):
        with pytest.raises(SteerlabError, match=f"reads no option '{name}', so that it would"):
            prompt(tokenizer, "chat", "Hi", template={name: True})


def test_options_of_the_template_reach_every_row_of_a_sweep(
    lively: Callable[[str], Any],
) -> None:
    """And are part of what decides a row, so that no kept row stands for another."""
    import steerlab as sl

    model = sl.load(lively("llama"))
    asked = "{% if enable_thinking %}<think>{% else %}no thought {% endif %}"
    model.tokenizer.chat_template = "{{ messages[0]['content'] }}" + asked
    lines = sl.corpus(langs=["en", "de"])
    keys: dict[str, Any] = {"layers": [1], "strengths": [1.0], "limit": 1, "new_tokens": 2}
    keys |= {"prompt": "chat"}
    plain = sl.sweep(model, lines, **keys)
    thinking = sl.sweep(model, lines, template="enable_thinking=true", **keys)
    assert plain["prompt"].str.endswith("no thought ").all()
    assert thinking["prompt"].str.endswith("<think>").all()
    assert set(plain["cell"]).isdisjoint(thinking["cell"])


def test_a_template_that_raises_is_a_sentence() -> None:
    tokenizer = chatty("{{ raise_exception('no user here') }}")
    with pytest.raises(SteerlabError, match="refuses a user's message .no user here.; use the"):
        prompt(tokenizer, "chat", "Hi")
