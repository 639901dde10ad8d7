"""Settings: one class for a verb's words, a call's keywords and a file, each wrong one named."""

import argparse
import inspect
import json
import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given as drawn
from hypothesis import settings as effort
from hypothesis import strategies as st

import steerlab as sl
from steerlab.cli import main, parser
from steerlab.cli.options import given
from steerlab.core.errors import SteerlabError
from steerlab.core.languages import LANGUAGES
from steerlab.core.settings import Checked, default_of, takes
from steerlab.edits import OPERATORS
from steerlab.engine.learn import HOW
from steerlab.engine.prompts import FORMS, INSTRUCTED, SUFFIXES
from steerlab.estimate import VARIANTS
from steerlab.studies.clas.settings import Settings as ClasSettings
from steerlab.studies.main.run import RunResult
from steerlab.studies.main.settings import Settings
from steerlab.sweeps.folder import claim
from steerlab.sweeps.grid import Grid
from steerlab.sweeps.methods import METHODS, STEERING, suits

ROOT = Path(__file__).resolve().parents[1]
CLASSES: dict[str, type[Checked]] = {"run": Settings, "sweep": Grid, "clas": ClasSettings}
PLACES = [(verb, name) for verb, of in CLASSES.items() for name in of.model_fields]
CALLS: dict[str, Callable[..., Any]] = {"run": sl.run, "sweep": sl.sweep, "clas": sl.clas.run}
# Options that are no settings: they decide where and how a run is done, not what it finds.
OTHER = {
    "run": {"--out", "--no-open"},
    "sweep": {"--out", "--dry-run", "--status", "--retry"},
    "clas": {"--out"},
}
RAY = {"--ray", "--workers", "--cpus", "--gpus"}


def options_of(verb: str) -> dict[str, argparse.Action]:
    """The long options of a verb, by their names."""
    verbs = next(action for action in parser()._actions if action.choices)
    chosen: Any = dict(verbs.choices or {})[verb]
    chosen._fill(chosen)
    actions = [action for action in chosen._actions if action.dest != "help"]
    return {name: action for action in actions for name in action.option_strings}


def read(verb: str, *words: str) -> Checked:
    """The settings that a command line gives."""
    options = parser().parse_args([verb, *words])
    return CLASSES[verb].of(given(options, CLASSES[verb]))


def error_of(capsys: pytest.CaptureFixture, *words: str) -> str:
    """What a wrong command line says: one line, exit 2."""
    assert main(list(words)) == 2
    message = capsys.readouterr()
    assert message.out == ""
    assert message.err.startswith("steerlab: ")
    assert message.err.count("\n") == 1
    return str(message.err)


# ------------------------------------------------------------------------------- one list of fields


@pytest.mark.parametrize("verb", CLASSES)
def test_every_field_is_an_option_and_every_option_a_field(verb: str) -> None:
    fields = {f"--{name.replace('_', '-')}" for name in CLASSES[verb].model_fields}
    options = options_of(verb)
    negations = {f"--no-{name[2:]}" for name in fields if options[name].nargs == 0}
    own = OTHER[verb] | (RAY if verb != "run" else set())
    assert set(options) == fields | negations | own
    assert not fields & own


@pytest.mark.parametrize("verb", CLASSES)
def test_every_field_is_described_in_a_sentence_that_help_shows(
    verb: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "10000")
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    shown = capsys.readouterr().out
    for name, field in CLASSES[verb].model_fields.items():
        assert field.description, name
        assert field.description in shown, name
        assert not field.description.endswith("."), name


@pytest.mark.parametrize("verb", CLASSES)
def test_a_call_shows_the_keys_of_its_class(verb: str) -> None:
    """The signature and the docstring are made from the class: name, default, order, sentence."""
    shown = inspect.signature(CALLS[verb]).parameters
    fields = CLASSES[verb].model_fields
    assert [name for name in shown if name in fields and name not in ("judge", "model", "corpus")]
    missing = [name for name in fields if name not in shown]
    assert missing == []
    assert all(each.kind is not inspect.Parameter.VAR_KEYWORD for each in shown.values())
    documented = re.findall(r"^    (\w+): ", str(inspect.getdoc(CALLS[verb])), re.MULTILINE)
    assert documented == list(shown), "in this order, each once"
    for name in fields:
        if shown[name].default is not None:
            assert shown[name].default == default_of(CLASSES[verb], name)


def test_what_shows_the_keys_can_fail() -> None:
    class One(Checked):
        word: str = "a"

    def call(*, other: int = 1, **keys: Any) -> None:
        """Do it.

        Args:
            other: a number.
        """

    assert "word" not in inspect.signature(call).parameters
    shown = takes(One)(call)
    assert str(inspect.signature(shown)) == "(*, other: int = 1, word: str = 'a') -> None"
    assert "(\n    model: Any = None,\n" in str(inspect.signature(sl.sweep))
    assert max(map(len, str(inspect.signature(sl.sweep)).splitlines())) < 100


def test_the_page_of_settings_is_that_of_the_classes() -> None:
    """`python experiments/settings_page.py` writes it."""
    page = runpy.run_path(str(ROOT / "experiments" / "settings_page.py"))["page"]()
    assert page == (ROOT / "docs" / "settings.md").read_text("utf-8")


# -------------------------------------------------------------------------------------- and back

ISOS = list(LANGUAGES)
PROMPTS = [*FORMS, *(f"{form}+{end}" for form in INSTRUCTED for end in (*SUFFIXES, *ISOS))]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
CODES = st.lists(st.sampled_from(ISOS), min_size=1, max_size=4, unique=True).map(tuple)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
STRENGTHS = st.lists(FLOATS, min_size=1, max_size=3).map(tuple)
COUNT = st.integers(1, 10**6)
PAIR = st.tuples(st.sampled_from(ISOS), st.sampled_from(ISOS))
DENSE = [name for name in STEERING if not OPERATORS[name].whole]
JUDGES = ["retrieval", "likelihood", "model:some/model", "embeddings:a/b", "http://host:1/v1"]
ESTIMATORS = st.lists(
    st.sampled_from([*VARIANTS, *METHODS, *HOW]), min_size=1, max_size=3, unique=True
)
OPERATOR_NAMES = st.lists(st.sampled_from(DENSE), min_size=1, max_size=3, unique=True)

# What each field may be; a field that is not here fails the test that draws from it.
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(("model", "revision", "corpus", "texts", "questions"), TEXT),
    **dict.fromkeys(("device", "lid", "saes", "judge_model"), TEXT),
    **dict.fromkeys(("langs", "targets", "sources"), CODES),
    **dict.fromkeys(("quick", "full", "race", "fluency", "one_line"), st.booleans()),
    **dict.fromkeys(("new_tokens", "draws", "batch"), COUNT),
    **dict.fromkeys(("limit", "dev_limit"), COUNT | st.none()),
    "source": st.sampled_from(ISOS),
    "dtype": st.sampled_from(["float32", "bfloat16", "float16", "float64", "auto"]),
    "layers": st.lists(st.integers(0, 200), min_size=1, max_size=4).map(tuple),
    "prompt": st.sampled_from(PROMPTS),
    "seed": st.integers(0, 2**63 - 1),
    "estimators": ESTIMATORS.map(tuple),
    "operators": OPERATOR_NAMES.map(tuple),
    "strengths": STRENGTHS,
    "alphas": STRENGTHS,
    "pairs": st.lists(PAIR, min_size=1, max_size=3).map(tuple),
    "baselines": st.lists(st.sampled_from([*SUFFIXES, *ISOS]), max_size=2).map(tuple),
    "judge": st.sampled_from(JUDGES),
    "split": st.sampled_from(["estimate", "dev", "test"]),
    "temperature": st.floats(0, 1e6),
    "template": st.dictionaries(
        st.from_regex(r"[a-z_]{1,8}", fullmatch=True),
        st.booleans() | st.integers(-9, 9) | st.sampled_from(["low", "high"]) | st.none(),
        min_size=1,
        max_size=3,
    ),
}
FIELDS["training"] = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("new", "batch", "every", "patience"), COUNT),
        **dict.fromkeys(("rate", "beta"), st.floats(1e-9, 1e9)),
        "steps": st.integers(0, 10**6),
        "pairs": st.integers(2, 10**6),
        "held_out": st.floats(0.01, 0.99),
    },
).filter(bool)
MAPPING = st.dictionaries(st.sampled_from(list(STEERING)), STRENGTHS, min_size=1, max_size=3)
# What some fields mean nothing without.
BESIDE: dict[str, dict[str, Any]] = {
    "draws": {"temperature": st.just(0.5)},
    "judge_model": {"judge": st.just(JUDGES[-1])},
    "template": {"prompt": st.just("chat")},
    "training": {"estimators": st.just(("lda", "bipo"))},
}


def fields_of(verb: str) -> dict[str, st.SearchStrategy[Any]]:
    """What each key of a verb may be."""
    own = {name: FIELDS[name] for name in CLASSES[verb].model_fields}
    if verb == "sweep":
        own["operators"] = MAPPING
        del own["strengths"]  # these are read into the operators
    if verb == "clas":
        own["prompt"] = st.sampled_from([form for form in PROMPTS if form != "instructed"])
    return own


def keys_of(verb: str) -> st.SearchStrategy[dict[str, Any]]:
    """Keys that a verb takes: any of them, any value, as far as they do not contradict another."""
    return st.fixed_dictionaries({}, optional=fields_of(verb)).map(agreeing)


def agreeing(keys: dict[str, Any]) -> dict[str, Any]:
    """The keys less those that contradict another one."""
    keys = dict(keys)
    if "targets" in keys and "sources" not in keys and "pairs" not in keys:
        keys["targets"] = tuple(set(keys["targets"]) - {keys.get("source", "en")}) or None
    for name, others in {
        "pairs": ("sources", "targets"),
        "corpus": ("texts",),
        "alphas": ("strengths", "operators"),
    }.items():
        if name in keys:
            keys = {key: value for key, value in keys.items() if key not in others}
    if keys.get("judge") == JUDGES[-1]:
        keys.setdefault("judge_model", "some/model")
    else:
        keys.pop("judge_model", None)
    if not keys.get("prompt", "").startswith("chat"):
        keys.pop("template", None)
    if not keys.get("temperature"):
        keys.pop("draws", None)
    able = [
        name
        for name in keys.get("operators", ("add",))
        if any(suits(name, each) for each in keys.get("estimators", ("diffmean",)))
    ]
    if isinstance(keys.get("operators"), dict):
        keys["operators"] = {name: keys["operators"][name] for name in able}
    elif "operators" in keys:
        keys["operators"] = tuple(able)
    if not able:
        keys.pop("operators", None)  # so that both are the defaults
        keys.pop("estimators", None)
    if not set(keys.get("estimators", ())) & set(HOW):
        keys.pop("training", None)
    return keys


def words_of(settings: Checked) -> list[str]:
    """The words of a command line that give these settings."""
    words = []
    for name, value in settings:
        option = name.replace("_", "-")
        if value == default_of(type(settings), name):
            continue
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            words.append(f"--{option}={word_of(value)}")
    return words


def word_of(value: Any) -> str:
    """One value as a command line has it."""
    if value is None:
        return "all"
    if isinstance(value, dict) and not all(isinstance(each, tuple) for each in value.values()):
        plain = {True: "true", False: "false", None: "null"}
        words = [
            plain.get(each, each) if type(each) in (bool, type(None)) else each
            for each in value.values()
        ]
        return ",".join(f"{name}={word}" for name, word in zip(value, words, strict=True))
    if isinstance(value, dict):
        return ",".join(f"{name}={word_of(strengths)}" for name, strengths in value.items())
    if isinstance(value, tuple):
        return ",".join("-".join(each) if isinstance(each, tuple) else str(each) for each in value)
    return str(value)


@pytest.mark.parametrize("verb", CLASSES)
def test_settings_become_words_and_the_words_the_same_settings(verb: str) -> None:
    @drawn(keys=keys_of(verb))
    @effort(max_examples=50, deadline=None)
    def round_trip(keys: dict[str, Any]) -> None:
        made = CLASSES[verb].of(keys)
        assert read(verb, *words_of(made)) == made

    round_trip()


@pytest.mark.parametrize(("verb", "name"), PLACES)
def test_a_field_alone_becomes_a_word_and_the_word_the_field(verb: str, name: str) -> None:
    """Each field in its turn, and at least once another value than its default."""
    if (verb, name) == ("sweep", "strengths"):
        return  # a grid has none: see `test_two_ways_to_write_the_same`
    others: list[Any] = []

    @drawn(keys=st.fixed_dictionaries({name: fields_of(verb)[name], **BESIDE.get(name, {})}))
    @effort(max_examples=20, deadline=None)
    def round_trip(keys: dict[str, Any]) -> None:
        made = CLASSES[verb].of(agreeing(keys))
        again = read(verb, *words_of(made))
        assert again == made
        others.append(getattr(again, name) != default_of(CLASSES[verb], name))

    round_trip()
    assert any(others)


@pytest.mark.parametrize("verb", CLASSES)
def test_settings_become_a_file_and_the_file_the_same_settings(verb: str) -> None:
    """What a manifest and sweep.json keep is enough to make the settings again."""

    @drawn(keys=keys_of(verb))
    @effort(max_examples=50, deadline=None)
    def round_trip(keys: dict[str, Any]) -> None:
        made = CLASSES[verb].of(keys)
        assert CLASSES[verb].of(json.loads(json.dumps(made.model_dump(mode="json")))) == made

    round_trip()


def test_two_ways_to_write_the_same() -> None:
    assert read("sweep", "--operators=add,rotate", "--strengths=1,2") == Grid.of(
        {"operators": {"add": [1, 2], "rotate": [1, 2]}}
    )
    mixed = read("sweep", "--operators", "add=0.5,1,rotate,push=2")
    assert mixed == Grid.of({"operators": {"add": (0.5, 1), "rotate": None, "push": 2}})
    assert read("run", "--langs", "en de", "--layers", "1, 2") == Settings.of(
        {"langs": ["en", "de"], "layers": range(1, 3)}
    )
    assert read("run", "--langs", "all", "--limit", "all") == Settings(langs=None, limit=None)
    assert read("clas", "--estimators", "lda against source, pca") == ClasSettings(
        estimators=("lda against source", "pca")
    )
    assert read("run", "--model", "a b") != read("run", "--model", "a")


def test_paths_dtypes_and_norwegian_are_read(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    made = Settings.of({"model": tmp_path, "corpus": tmp_path / "a", "dtype": torch.bfloat16})
    assert (made.model, made.corpus) == (str(tmp_path), str(tmp_path / "a"))
    assert made.dtype == "bfloat16"
    (tmp_path / "grid.yaml").write_text("langs: [en, no]\ntargets: no\n", "utf-8")
    read = Grid.read(tmp_path / "grid.yaml")
    assert (read.langs, read.targets) == (("en", "no"), ("no",))


def test_a_quick_run_reports_on_fewer_lines() -> None:
    assert (Settings().limit, Settings(quick=True).limit) == (200, 16)
    assert Settings(quick=True, limit=48).limit == 48
    assert read("run", "--quick") == Settings(quick=True)
    assert read("run", "--no-quick") == Settings()


# ------------------------------------------------------------------------------------ what is wrong

WRONG: dict[str, str] = {
    **dict.fromkeys(("langs", "targets", "sources", "source"), "xx"),
    **dict.fromkeys(("layers", "strengths", "alphas"), "a"),
    **dict.fromkeys(("limit", "dev_limit", "new_tokens", "draws", "batch"), "0"),
    "pairs": "en",
    "estimators": "magic",
    "operators": "multiply",
    "baselines": "loud",
    "prompt": "poem",
    "judge": "gpt",
    "judge_model": "m",
    "dtype": "float",
    "split": "train",
    "temperature": "hot",
    "seed": "new",
    "template": "perhaps",
    "training": "perhaps",
}


@pytest.mark.parametrize(("verb", "name"), PLACES)
def test_a_wrong_word_is_one_sentence_that_names_the_key(
    verb: str, name: str, capsys: pytest.CaptureFixture
) -> None:
    """Whatever is wrong, before a model is loaded: a text that may be anything may not be empty."""
    option = f"--{name.replace('_', '-')}"
    if options_of(verb)[option].nargs == 0:
        with pytest.raises(SystemExit):  # a flag takes no word, and argparse says so
            main([verb, f"{option}=perhaps"])
        assert option in capsys.readouterr().err
        return
    other = ["--judge=likelihood"] if name == "judge_model" else []
    message = error_of(capsys, verb, f"{option}={WRONG.get(name, '')}", *other)
    # A grid reads `strengths` into its operators, and a judge's model is a matter of the judge.
    key = {"sweep strengths": "operators.add"}.get(f"{verb} {name}", name.removesuffix("_model"))
    assert message.startswith(f"steerlab: {key}")
    assert WRONG.get(name, "") in message


def test_unknown_words_are_one_sentence_that_names_the_nearest(
    capsys: pytest.CaptureFixture,
) -> None:
    message = error_of(capsys, "run", "--langes", "en")
    assert "there is no option '--langes'; did you mean '--langs'? steerlab run --help" in message
    assert "there is no option '--zzz'; steerlab clas --help" in error_of(capsys, "clas", "--zzz=1")
    assert "'grid.yaml' is one word too many" in error_of(capsys, "sweep", "a.yaml", "grid.yaml")
    assert "limit: " in error_of(capsys, "run", "--limit", "0", "--layers", "a")
    for call in CALLS.values():
        with pytest.raises(SteerlabError, match="there is no key 'layer'; did you mean 'layers'?"):
            call(out="nowhere", layer=3)


def test_every_wrong_key_is_named_at_once_and_beside_settings_none_is_taken() -> None:
    with pytest.raises(SteerlabError, match=r"limit: .*; seed: "):
        Settings.of({"limit": 0, "seed": "a"})
    with pytest.raises(SteerlabError, match="give Settings or its keys, not both; .* is limit"):
        sl.run(Settings(), out="nowhere", limit=2)
    with pytest.raises(SteerlabError, match="give Grid or its keys, not both; .* is model"):
        sl.sweep("polyglot", grid=Grid())


def test_what_decides_nothing_is_refused(polyglot: sl.Model) -> None:
    """A precision, say, of a model that is loaded already."""
    for verb in ("run", "sweep"):
        with pytest.raises(SteerlabError, match="loaded already, so that dtype decides nothing"):
            CALLS[verb](model=polyglot, dtype="float32", out="nowhere")


# ------------------------------------------------------------------------------- options and a file


def test_options_win_over_the_file(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text("targets: [es]\nlimit: 8\nfluency: true\noperators: {add: [1], rotate: [2]}\n")

    def merged(*words: str) -> Grid:
        return Grid.read(file, given(parser().parse_args(["sweep", str(file), *words]), Grid))

    plain = Grid.read(file)
    assert merged() == plain
    assert merged("--limit", "3", "--targets", "all", "--no-fluency") == Grid.of(
        {"limit": 3, "operators": plain.operators}
    )
    assert merged("--strengths", "0.5").operators == {"add": (0.5,), "rotate": (0.5,)}
    assert merged("--operators", "rotate").operators == {"rotate": STEERING["rotate"]}
    file.write_text("operators: [add, rotate]\nstrengths: [3]\n")
    assert merged("--operators", "push").operators == {"push": (3,)}
    assert merged("--operators", "push=2").operators == {"push": (2,)}
    message = error_of(capsys, "sweep", str(file), "--limit", "0")
    assert f"{file} with the options: limit: " in message
    assert "there is no file to name the folder of results after" in error_of(capsys, "sweep")


# -------------------------------------------------------------------------------------- its folders


def test_folders_of_before_go_on(tmp_path: Path) -> None:
    """Manifests were written before there was a revision among the settings: it was none."""
    for made in (Settings(), ClasSettings()):
        folder = tmp_path / type(made).__module__
        folder.mkdir()
        kept = made.model_dump(mode="json")
        del kept["revision"]
        (folder / "manifest.json").write_text(json.dumps({"settings": kept}), "utf-8")
        claim(folder, made.model_dump(mode="json"))
        other = made.model_copy(update={"revision": "main"})
        with pytest.raises(SteerlabError, match=r"other settings \(revision None there, 'main'"):
            claim(folder, other.model_dump(mode="json"))


def test_what_is_filed_of_a_grid_has_the_keys_that_it_had() -> None:
    filed = Grid(limit=3).model_dump(mode="json")
    assert "strengths" not in filed
    assert filed["operators"] == {"add": list(STEERING["add"])}
    assert set(filed) == set(Grid.model_fields) - {"strengths"}


def test_a_run_by_keywords_with_a_model_and_a_corpus_that_are_loaded(
    tmp_path: Path, tiny: Callable[[str], Path]
) -> None:
    """It is the run of their names, and holds what it says."""
    model, texts = sl.load(tiny("llama")), sl.corpus()
    keys: dict[str, Any] = {"langs": "en,de,es", "targets": ["de"], "limit": 2, "quick": True}
    done = sl.run(model=model, corpus=texts, out=tmp_path / "run", progress=False, **keys)
    assert done == RunResult(tmp_path / "run")
    assert done.report.read_text("utf-8").lower().startswith("<!doctype html>")
    assert set(done.rows["target"]) >= {"de"}
    assert done.summary["targets"] == ["de"]
    kept = done.manifest["settings"]
    assert (kept["model"], kept["corpus"]) == (model.name, texts.name)
    assert done.manifest["corpus"]["langs"] == ["en", "de", "es"]
    assert Settings.of(kept) == Settings.of(keys | {"model": model.name, "corpus": texts.name})
    with pytest.raises(SteerlabError, match="other settings .*limit 2 there, 3 here"):
        sl.run(model=model, corpus=texts, out=done, **keys | {"limit": 3})


def test_the_languages_of_a_sweep_hold_for_a_corpus_that_is_read(polyglot: sl.Model) -> None:
    with pytest.raises(SteerlabError, match="has no 'fr'; it has en de"):
        sl.sweep(polyglot, sl.corpus(), langs=["en", "de"], targets=["fr"], limit=1)
