"""A grid's keys: what is wrong is named with its key, what was given and what is allowed."""

from typing import Any

import pytest
from pydantic import ValidationError

from steerlab.core.errors import SteerlabError
from steerlab.core.yaml_file import read_yaml
from steerlab.edits import OPERATORS
from steerlab.sweeps.grid import Grid
from steerlab.sweeps.methods import STEERING


def test_a_file_is_the_same_as_the_keys(tmp_path):
    file = tmp_path / "grid.yaml"
    file.write_text(
        "targets: [es, de]\nestimators: lda\noperators: {add: [0.5, 1], rotate: [1]}\nlayers: "
        "all\nlimit: 8\n"
    )
    grid = Grid.read(file)
    keys: dict[str, Any] = {"targets": ["es", "de"], "estimators": ["lda"], "limit": 8}
    assert grid == Grid.of(keys | {"operators": {"add": (0.5, 1.0), "rotate": (1.0,)}})
    cells = grid.cells(("en", "de", "es", "fr"), 4)
    assert len(cells) == 3 * 4 * 2  # strengths, layers, targets
    assert {cell.method for cell in cells} == {"lda", "lda_rotate"}
    assert {cell.target for cell in cells} == {"es", "de"}
    assert len(set(cells)) == len(cells)


def test_operators_bring_their_own_strengths_or_share_some():
    some = ["add", "rotate", "affine"]
    assert Grid.of({"operators": some}).operators == {name: OPERATORS[name].grid for name in some}
    assert Grid.of({"operators": ["add", "rotate"], "strengths": [1]}).operators == {
        "add": (1.0,),
        "rotate": (1.0,),
    }
    assert Grid.of({}).operators == {"add": STEERING["add"]}
    assert Grid.of({}).cells(("en", "de"), 3) != Grid.of({"source": "de"}).cells(("en", "de"), 3)


def test_an_operator_of_one_estimator_runs_with_that_one_only():
    grid = Grid.of(
        {"estimators": ["diffmean", "sparse"], "operators": ["add", "overwrite"], "layers": 0}
    )
    methods = {cell.method for cell in grid.cells(("en", "de"), 1)}
    assert methods == {"diffmean", "sparse", "sparse_overwrite"}
    told = r"operators\.overwrite: it needs what sparse makes, which is not asked for"
    with pytest.raises(SteerlabError, match=told):
        Grid.of({"operators": ["overwrite"]})


def test_draws_are_cells_of_their_own():
    cells = Grid.of(
        {"temperature": 0.7, "draws": 3, "targets": "es", "layers": 0, "strengths": 1}
    ).cells(("en",), 1)
    assert [cell.draw for cell in cells] == [0, 1, 2]


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        (
            {"layer": [1]},
            "there is no key 'layer'; did you mean 'layers'\\? the keys are model, revision",
        ),
        ({"zzz": 1}, "there is no key 'zzz'; the keys are model"),
        ({"layers": ["two"]}, r"layers\.0: .*valid integer.*, and 'two' was given"),
        ({"layers": [-1]}, r"layers\.0: .*greater than or equal to 0, and -1 was given"),
        (
            {"operators": {"add": ["strong"]}},
            r"operators\.add\.0: .*valid number.*, and 'strong' was given",
        ),
        ({"operators": {"add": [float("inf")]}}, r"operators\.add\.0: .*finite number"),
        ({"operators": ["multiply"]}, "a sweep steers with add, rotate, .*, not with 'multiply'"),
        ({"operators": "rotat"}, "not with 'rotat'; did you mean 'rotate'"),
        (
            {"operators": {"add": [1]}, "strengths": [1]},
            "strengths: the operators have their own; give one of the two",
        ),
        (
            {"estimators": ["magic"]},
            "estimators: there is no estimator 'magic'; there are .*diffmean",
        ),
        ({"targets": ["xx"]}, "targets: unknown language code 'xx'"),
        ({"targets": ["en"]}, "the source 'en' is among the targets"),
        ({"targets": []}, "targets: there is nothing in it; give at least one, or leave the key"),
        ({"operators": {}}, "operators: there is nothing in it"),
        ({"operators": {"add": []}}, r"operators\.add: there is nothing in it"),
        ({"strengths": ""}, "strengths: there is nothing in it"),
        (
            {"split": "train"},
            "split: input should be 'estimate', 'dev' or 'test', and 'train' was given",
        ),
        ({"temperature": -1}, "temperature: .*greater than or equal to 0"),
        ({"judge": "gpt"}, "there is no judge 'gpt'; the judges are retrieval, likelihood"),
        ({"judge": "likelihood", "judge_model": "m"}, "named for a URL only"),
        ({"dtype": "bfloat"}, "dtype: .*and 'bfloat' was given; did you mean 'bfloat16'"),
        ({1: 2}, "there is no key '1'; the keys are model"),
        ({"draws": 2}, "draws: at temperature 0 every draw is the same"),
        ({"limit": 0, "batch": 0}, "limit: .*; batch: "),
        ([1, 2], "keys and values are needed, not list"),
        ({"prompt": "chat", "template": "thinking"}, "template: 'thinking' is no option; write"),
        ({"prompt": "chat", "template": "a=1,a=2"}, "template: a stands twice"),
        ({"prompt": "chat", "template": {"a": [1]}}, r"template\.a\."),
        ({"template": {"a": 1}}, "template: the prompt form 'line' has no chat template; give"),
        ({"layers": [True]}, r"layers: true and false are no numbers, and \[True\] was given"),
        ({"strengths": [0.5, True]}, "strengths: true and false are no numbers"),
        ({"operators": {"add": [True]}}, "operators: true and false are no numbers"),
        ({"seed": False}, "seed: true and false are no numbers, and False was given"),
        ({"limit": True}, "limit: true and false are no numbers"),
    ],
)
def test_what_is_refused(keys, told):
    with pytest.raises(SteerlabError, match=told):
        Grid.of(keys)


def test_a_file_that_is_no_grid(tmp_path):
    with pytest.raises(SteerlabError, match=r"there is no grid to read at .*none\.yaml"):
        Grid.read(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("layers: [1, 2\n")
    with pytest.raises(SteerlabError, match=r"bad\.yaml is not YAML: .*line 2"):
        Grid.read(tmp_path / "bad.yaml")
    (tmp_path / "key.yaml").write_text("layers: [1]\nstrenghts: [1]\n")
    with pytest.raises(
        SteerlabError, match=r"key\.yaml: there is no key 'strenghts'; did you mean"
    ):
        Grid.read(tmp_path / "key.yaml")


def test_options_of_a_chat_template_are_words_or_a_mapping(tmp_path):
    options = {"enable_thinking": True, "effort": "low", "depth": 3, "p": 0.5, "tool": None}
    words = "enable_thinking=true,effort=low,depth=3,p=0.5,tool=null"
    (tmp_path / "a.yaml").write_text(
        f"prompt: chat+target\ntemplate: {options}\n".replace("True", "true").replace(
            "None", "null"
        )
    )
    for grid in (
        Grid.of({"prompt": "chat", "template": words}),
        Grid.of({"prompt": "chat+english", "template": options}),
        Grid.read(tmp_path / "a.yaml"),
    ):
        assert grid.template == options
        assert grid.template["enable_thinking"] is True


def test_a_grid_is_not_changed():
    with pytest.raises(ValidationError):
        setattr(Grid.of({}), "limit", 3)  # noqa: B010 -- mypy would see what pydantic must


def test_yaml_means_what_it_says(tmp_path):
    """Words without quotes that YAML 1.1 reads as truth, seconds, octal or a date."""
    file = tmp_path / "a.yaml"
    file.write_text(
        "a: no\nb: [off, on, yes]\nc: 1:30\nd: 0x10\ne: 2024-01-01\nf: 1e-3\ng: true\nh: ~"
    )
    assert read_yaml(file) == {
        **{"a": "no", "b": ["off", "on", "yes"], "c": "1:30", "d": "0x10", "e": "2024-01-01"},
        **{"f": 0.001, "g": True, "h": None},
    }
    file.write_text("langs: [en, no]\ntargets: [nob]\none_line: no\n")
    read = Grid.read(file)
    assert (read.langs, read.targets, read.one_line) == (("en", "no"), ("no",), False)
    with pytest.raises(SteerlabError, match="false is no language; for Norwegian quote it"):
        Grid.of({"langs": ["en", False]})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("limit: 1\nlimit: 2", "the key 'limit' stands twice"),
        ("a: &x [1]\nb: *x", "it has the alias \\*x"),
        ("a: " + "[" * 100_000, "more than 20 lists or mappings stand in each other"),
        ("a: !!int ''", "it has the tag !!int"),
        ("a: !!timestamp foo", "it has the tag !!timestamp"),
        ("a: !!python/object:os.system x", "it has the tag !!python/object:os.system"),
        ("? [a]\n: b", "a key is no word"),
        ("<<: {limit: 1}", "there is no key '<<'"),
        ("base: &a {limit: 1}\n<<: *a", "it has the alias \\*a"),
        ("seed: " + "9" * 5000, "it is too long for a number|Exceeds the limit"),
        ("targets: [on]", "unknown language code 'on'"),
        ("targets: [y]", "unknown language code 'y'"),
        ("layers: [0o10]", "and '0o10' was given"),
        ("a: 1\n---\nb: 2", "expected a single document"),
        ("#" * 1_000_001, "has 1,000,001 bytes, and such a file has at most 1,000,000"),
    ],
)
def test_yaml_that_is_refused(text, told, tmp_path):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(SteerlabError, match=told) as refused:
        Grid.read(tmp_path / "a.yaml")
    assert len(str(refused.value)) < 1000


def test_long_values_are_cut_in_messages():
    with pytest.raises(SteerlabError, match=r"\.\.\. \(.* letters\) was given") as refused:
        Grid.of({"limit": "9" * 10**6, "split": "x" * 10**6})
    assert len(str(refused.value)) < 2000
