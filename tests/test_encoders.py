"""Encoders are read as they are, by their own positions, and generate nothing."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import steerlab as sl
from steerlab.core.corpus import Corpus
from steerlab.core.errors import SteerlabError
from steerlab.engine.collect import text_means
from steerlab.engine.cross_entropy import bits_per_byte
from steerlab.models.loading import PACKAGED, load

WORDS = "the a cat dog sits runs on under red big house tree and of der die das Hund Baum".split()
LINES = {
    "en": ("the cat sits on the house", "a dog", "the big red dog runs under a tree and sits"),
    "de": ("der Hund", "das Baum der Hund die Baum das Hund der Baum", "Hund Hund unbekannt"),
}
SIZES: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 24,
}
T5: dict[str, Any] = {
    **{"vocab_size": 40, "d_model": 32, "num_layers": 3, "num_heads": 4, "d_kv": 8, "d_ff": 64},
    "decoder_start_token_id": 1,
}


def tokenizer_of(kind: str) -> Any:
    """Words, with what each kind puts around a text; padding is 1, as it is XLM-R's."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    table = {name: number for number, name in enumerate(["<s>", "<pad>", "</s>", "<unk>", *WORDS])}
    made = Tokenizer(models.WordLevel(table, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    single = "$A </s>" if "t5" in kind else "<s> $A </s>"
    special = [("<s>", 0), ("</s>", 2)]
    made.post_processor = processors.TemplateProcessing(single=single, special_tokens=special)
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "</s>", "sep_token": "</s>"}
    if "t5" not in kind:
        names |= {"bos_token": "<s>", "cls_token": "<s>"}
    return PreTrainedTokenizerFast(tokenizer_object=made, **names)


KINDS = ["xlm-roberta", "bert", "roberta", "modernbert", "deberta-v2", "electra", "t5", "mt5"]


def network_of(kind: str, *, head: bool = False) -> Any:
    """A random network, whose weights are large enough that every part of it is felt."""
    from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

    special = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "cls_token_id": 0}
    sizes = T5 if "t5" in kind else {**SIZES, "sep_token_id": 2}
    if kind == "deberta-v2":  # as the released ones: positions are relative
        sizes = {**sizes, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]}
    config = AutoConfig.for_model(kind, **sizes, **special)
    torch.manual_seed(0)
    seq2seq: Any = AutoModelForSeq2SeqLM if head else AutoModel
    masked: Any = AutoModelForMaskedLM if head else AutoModel
    network = (seq2seq if "t5" in kind else masked).from_config(config)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    return network.eval()


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = Path(tmp_path_factory.mktemp(request.param)) / request.param
    network_of(request.param, head=request.param != "electra").save_pretrained(top)
    tokenizer_of(request.param).save_pretrained(top)
    return top


def corpus_of(lines: Mapping[str, tuple[str, ...]] = LINES) -> Corpus:
    return Corpus("words", lines, tuple(range(3)))


@torch.inference_mode()
def plain_states(network: Any, tokenizer: Any, text: str) -> tuple[list[Tensor], list[int]]:
    """Hidden states of one text by transformers alone, and which of its tokens are its own."""
    ids = tokenizer(text).input_ids
    whole = network.get_encoder() if "t5" in network.config.model_type else network.base_model
    out = whole(
        input_ids=torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        output_hidden_states=True,
    )
    own = [place for place, token in enumerate(ids) if token not in (0, 1, 2)]
    return [state[0] for state in out.hidden_states], own


def means_of(network: Any, tokenizer: Any, texts: Sequence[str], states: int) -> Tensor:
    """The mean over every text's own tokens at the first hidden states, `[layer width]`."""
    sums, count = torch.zeros(states, network.config.hidden_size), 0
    for text in texts:
        given, own = plain_states(network, tokenizer, text)
        sums += torch.stack(given[:states])[:, own].sum(1)
        count += len(own)
    return sums / count


def test_the_means_are_those_of_plain_hidden_states(folder: Path) -> None:
    """In batches whose texts have several lengths, and a text at a time."""
    from transformers import AutoModel

    model = load(folder)
    network, tokenizer = AutoModel.from_pretrained(folder).eval(), tokenizer_of(folder.name)
    inner = model.n_layers - 1  # T5's last hidden state is behind a norm that no block has
    for batch in (64, 1):
        read = sl.collect(model, corpus_of(), batch=batch)
        before = sl.collect(model, corpus_of(), site="resid_pre", batch=batch)
        for number, texts in enumerate(LINES.values()):
            wanted = means_of(network, tokenizer, texts, inner + 1)
            torch.testing.assert_close(
                read.mean[number, :inner].float(), wanted[1:], atol=1e-5, rtol=1e-4
            )
            torch.testing.assert_close(before.mean[number].float(), wanted, atol=1e-5, rtol=1e-4)
    assert read.count.tolist() == [6 + 2 + 10, 2 + 10 + 3], "specials and padding do not count"
    assert read.provenance["excluded"] == "special tokens and padding"
    assert (read.provenance["form"], model.metadata["part"]) == ("text", "encoder")


def test_each_text_has_its_own_mean_whatever_runs_beside_it(folder: Path) -> None:
    model, tokenizer = load(folder), tokenizer_of(folder.name)
    from transformers import AutoModel

    network = AutoModel.from_pretrained(folder).eval()
    means = text_means(model, corpus_of(), layers=[0, 1])
    for lang, texts in LINES.items():
        for number, text in enumerate(texts):
            wanted = means_of(network, tokenizer, [text], 3)[1:]
            torch.testing.assert_close(means[lang][number], wanted, atol=1e-5, rtol=1e-4)


def test_what_needs_the_next_token_is_refused(folder: Path, tmp_path: Path) -> None:
    model = load(folder)
    moments = sl.collect(model, corpus_of())
    directions = sl.diffmean(moments)
    edit = sl.add(directions.between("en", "de").at(1))
    is_an_encoder = "is an encoder, which collect and text_means read"
    calls: dict[str, Any] = {
        "generate": lambda: sl.generate(model, ["the cat"]),
        "generate under an edit": lambda: sl.generate(model, ["the cat"], edit=edit),
        "cross_entropy": lambda: sl.cross_entropy(model, ["the cat"], edit),
        "bits": lambda: bits_per_byte(model, ["the cat"]),
        "sweep": lambda: sl.sweep(model, corpus_of(), layers=[1]),
        "sweep in a folder": lambda: sl.sweep(model, corpus_of(), out=tmp_path / "a"),
        "run": lambda: sl.run(model=model, corpus=corpus_of(), out=tmp_path / "b"),
        "TransformerLens": lambda: model.tl,
        "head": lambda: model.head,
    }
    for name, call in calls.items():
        with pytest.raises(SteerlabError) as refused:
            call()
        assert is_an_encoder in str(refused.value), name
    with pytest.raises(
        SteerlabError, match="resid_pre and resid_post are read, and not 'mlp_post'"
    ):
        sl.collect_units(model, corpus_of())
    with pytest.raises(SteerlabError, match="and not 'attn_out'"):
        sl.collect(model, corpus_of(), site="attn_out")
    with pytest.raises(
        SteerlabError, match="reads a sentence as it is .* 'instructed'; leave form"
    ):
        sl.collect(model, corpus_of(), form="instructed")
    assert not list(tmp_path.iterdir()), "told before any work"


def test_estimators_take_what_an_encoder_gives(folder: Path) -> None:
    moments = sl.collect(load(folder), corpus_of())
    direction = sl.diffmean(moments).between("en", "de").at(1)
    gap = moments.mean[1, 1] - moments.mean[0, 1]
    torch.testing.assert_close(direction.gap[0], gap.norm().float())
    torch.testing.assert_close(direction.unit[0], (gap / gap.norm()).float(), atol=1e-5, rtol=1e-4)


def test_loading_twice_gives_the_same_fingerprint(folder: Path) -> None:
    """What is random in loading, such as a pooler that the checkpoint lacks, is no part of it."""
    torch.manual_seed(1)
    first = load(folder).fingerprint
    torch.manual_seed(2)
    assert load(folder).fingerprint == first


@pytest.mark.parametrize("kind", ["xlm-roberta", "t5"])
@pytest.mark.parametrize("head", [True, False])
def test_an_encoder_in_memory(kind: str, head: bool) -> None:
    network, tokenizer = network_of(kind, head=head), tokenizer_of(kind)
    keys = set(network.state_dict())
    model = load(network, tokenizer=tokenizer)
    read = sl.collect(model, corpus_of(), layers=[0])
    wanted = means_of(network, tokenizer, LINES["en"], 2)[1]
    torch.testing.assert_close(read.mean[0, 0].float(), wanted, atol=1e-5, rtol=1e-4)
    assert set(network.state_dict()) == keys, "the user's network is as it was"
    assert tokenizer.padding_side == "right"


def test_an_edit_is_seen_by_collect(folder: Path) -> None:
    """And moves each text's own tokens alone, in padded rows too."""
    model = load(folder)
    plain = sl.collect(model, corpus_of(), layers=[0])
    direction = sl.diffmean(plain).between("en", "de").at(0)
    with sl.add(direction).on(model):
        moved = sl.collect(model, corpus_of(), layers=[0])
    assert moved.provenance["edited"]
    shift = (moved.mean - plain.mean)[:, 0]
    torch.testing.assert_close(
        shift.float(), (direction.gap * direction.unit).expand(2, -1), atol=1e-4, rtol=1e-3
    )


def test_texts_that_cannot_be_read_are_told() -> None:
    model = load(network_of("xlm-roberta"), tokenizer=tokenizer_of("xlm-roberta"))
    assert model.context == 22, "24 positions, of which XLM-R begins behind that of the padding"
    longest = " ".join(["cat"] * 20)
    sl.collect(model, corpus_of({"en": (longest, "a dog", "a")}), layers=[0])
    with pytest.raises(SteerlabError, match="a text has 23 tokens; .* was made for 22: cut it"):
        sl.collect(model, corpus_of({"en": (f"{longest} cat", "a dog", "a")}), layers=[0])
    with pytest.raises(SteerlabError, match="has no tokens; give some text"):
        sl.collect(model, corpus_of({"en": ("a", "</s>", "b")}), layers=[0])


def test_one_that_mixes_padding_into_its_texts_reads_them_apart() -> None:
    """FNet has no mask: its Fourier transform runs over the padding too."""
    from transformers import FNetConfig, FNetModel

    torch.manual_seed(0)
    sizes = {key: SIZES[key] for key in SIZES if key != "num_attention_heads"}
    network = FNetModel(FNetConfig(**sizes, pad_token_id=1)).eval()
    tokenizer = tokenizer_of("fnet")
    model = load(network, tokenizer=tokenizer)
    assert not model.pads
    means = text_means(model, corpus_of(), layers=[0, 1])
    with torch.inference_mode():
        for lang, texts in LINES.items():
            for number, text in enumerate(texts):
                ids = torch.tensor([tokenizer(text).input_ids])
                states = network(input_ids=ids, output_hidden_states=True).hidden_states
                wanted = torch.stack([state[0, 1:-1].mean(0) for state in states[1:3]])
                torch.testing.assert_close(means[lang][number], wanted, atol=1e-5, rtol=1e-4)


def test_encoders_of_transformerlens_are_refused() -> None:
    import transformer_lens

    sizes: dict[str, Any] = {"n_layers": 2, "d_model": 32, "n_ctx": 24, "d_head": 8, "n_heads": 4}
    config = transformer_lens.HookedTransformerConfig(
        **sizes, d_vocab=40, act_fn="gelu", attention_dir="bidirectional"
    )
    with pytest.raises(SteerlabError, match=r"\(HookedTransformer\) is an encoder: .* load it by"):
        load(transformer_lens.HookedTransformer(config))


def test_what_is_no_encoder_is_not_taken_for_one() -> None:
    from transformers import BartConfig, BartForConditionalGeneration, BertConfig, BertLMHeadModel

    sizes: dict[str, Any] = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2}
    bart = BartForConditionalGeneration(BartConfig(vocab_size=40, **sizes))
    with pytest.raises(SteerlabError, match="has an encoder and a decoder"):
        load(bart, tokenizer=tokenizer_of("bart"))
    claims = BertLMHeadModel(BertConfig(**SIZES))
    with pytest.raises(SteerlabError, match=r"masked language .* as an encoder \(AutoModel\)"):
        load(claims, tokenizer=tokenizer_of("bert"))
    assert sl.generate(load(PACKAGED), ["No.\n"], max_new_tokens=1)
