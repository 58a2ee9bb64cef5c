"""YAML is read as YAML 1.2, with lines, and nothing in it can do harm."""

import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from metaloom.search_spaces.errors import ExperimentError
from metaloom.search_spaces.reading.document import MAX_ALIASES, MAX_DEPTH, CoreDumper, read_value, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 1e5),
        ("-.5", -0.5),
        ("1.", 1.0),
        ("no", "no"),
        ("off", "off"),
        ("yes", "yes"),
        ("12:30", "12:30"),
        ("1_000", "1_000"),
        ("2001-01-01", "2001-01-01"),
        ("=", "="),
        ("010", 10),
        ("0o10", 8),
        ("0x10", 16),
        ("+7", 7),
        ("true", True),
        ("~", None),
        ("", None),
        ("'5'", "5"),
        (".inf", math.inf),
        ("{a: [1, {b: 2}]}", {"a": [1, {"b": 2}]}),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text, value):
    got = read_value(text)
    assert got == value and type(got) is type(value)


def test_every_value_knows_its_line():
    document = read_yaml("name: a\ntasks:\n  source: glyphs\n\nlearner:\n  search:\n    - maml\n    - anil\n", "f.yaml")
    assert document.origins["tasks", "source"] == "f.yaml:3"
    assert document.origins["learner",] == "f.yaml:5"
    assert document.origins["learner", "search", 1] == "f.yaml:8"


def wrong(text: str) -> str:
    with pytest.raises(ExperimentError) as caught:
        read_yaml(text, "f.yaml")
    return str(caught.value)


def test_a_key_given_twice_is_named_with_both_lines():
    assert wrong("a: 1\nb: 2\na: 3") == "f.yaml:3: a: given twice, in lines 1 and 3: remove one"


def test_both_of_two_mistakes_are_reported():
    assert "2 problems" in wrong("a: {b: 1, b: 2}\nc: !!python/name:os.system ''")


@pytest.mark.parametrize(
    "text",
    ["a: !!python/object/apply:os.system [ls]", "a: !mine 3", "!mine {a: 1}", "a: !!binary aGk=", "a: !!set {x}"],
)
def test_tags_are_refused(text):
    assert "tag" in wrong(text)


def test_a_syntax_error_has_its_line():
    assert wrong("a: 1\nb: ]").startswith("f.yaml:2: not valid YAML:")
    assert "a flow sequence that begins in line 2, did not find" in wrong("a: 1\nb: [1, 2\n")


@pytest.mark.parametrize("text", ["[1, 2]", "3", "", "# nothing"])
def test_a_file_that_is_no_mapping_is_refused(text):
    assert wrong(text).removeprefix("f.yaml").removeprefix(":1").startswith(": expected a mapping of sections")


def test_deep_nesting_is_refused_before_anything_recursive_sees_it():
    assert f"more than {MAX_DEPTH} levels" in wrong("a: " + "[" * 200_000)


def test_an_alias_that_contains_itself_ends():
    assert "once aliases are expanded" in wrong("a: &x [*x]")


def test_an_alias_bomb_is_refused():
    rows = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert "once aliases are expanded" in wrong("\n".join(rows))
    assert f"more than {MAX_ALIASES} aliases" in wrong("a: &a 1\nb: [" + "*a, " * 200 + "]")


def test_a_huge_file_is_refused():
    assert "larger than 1 MiB" in wrong("a: " + "x" * (1 << 21))


def test_two_documents_are_refused():
    assert "single document" in wrong("a: 1\n---\nb: 2")


@pytest.mark.parametrize("text", ["\x00", "a: \x07", "a:\n\t- 1", "&", "*a", "a: b: c", "%YAML 9.9\n---\na: 1"])
def test_garbage_is_an_error_in_words(text):
    assert "not valid YAML" in wrong(text)


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10)


@given(values)
def test_what_is_dumped_reads_back(value):
    text = yaml.dump(value, Dumper=CoreDumper)
    assert read_value(text) == value


@given(st.text())
def test_no_text_breaks_the_reader(text):
    try:
        read_yaml(text, "f.yaml")
    except ExperimentError as error:
        assert error.problems
