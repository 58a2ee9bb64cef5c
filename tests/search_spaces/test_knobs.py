"""A knob in three modes, against every kind of field."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from metaloom.learners.domains import Added, Bounds, Choice, Int, Learned, Real, Word
from metaloom.learners.fields import MISSING, Unfit, fields_of, literal
from metaloom.search_spaces.knobs.declarations import parse_knob
from metaloom.search_spaces.knobs.sampling import CORNERS, Suggest, domains, resolve_node
from metaloom.search_spaces.reading.nodes import Alternatives, Fixed, LearnedKnob, Place, Searched


@dataclass(frozen=True)
class Config:
    """One field of every kind."""

    rate: Annotated[float | Learned, Real(1e-4, 1.0, log=True, per=("scalar", "layer"))] = 0.01
    decay: Annotated[float | Learned, Real(1e-6, 0.1, log=True, positive=True)] = 0.0
    signed: Annotated[float, Real(-1.0, 1.0, per=())] = 0.0
    steps: Annotated[int, Int(1, 10)] = 5
    limit: Annotated[int | None, Int(1, 10)] = None
    kind: Literal["a", "b"] = "a"
    activation: Annotated[str, Choice(("relu", "tanh"))] = "relu"
    flag: bool = False
    widths: tuple[int, ...] = (4, 4)
    free: float = 1.0
    path: str | None = None
    needed: Annotated[str, "a note that is no domain"] = "x"
    word: Annotated[str, Word(("a", "b", "c"), (2, 3), default="c", part="letter", separator="-")] = "a-b"
    long: Annotated[str, Word(("a", "b"), (3, 10, 1), default="a", part="letter", separator="-")] = "a-b-a"


FIELDS = fields_of(Config)


def parse(name, raw, fallback=MISSING):
    place = Place(("x", name), f"x.{name}")
    given_fallback = FIELDS[name].default if fallback is MISSING else fallback
    node = parse_knob(FIELDS[name], raw, given_fallback, place)
    return node, [str(problem) for problem in place.problems.found]


def node_of(name, raw, fallback=MISSING):
    node, problems = parse(name, raw, fallback)
    assert not problems
    return node


def complaint(name, raw):
    _, problems = parse(name, raw)
    assert len(problems) == 1, problems
    return problems[0]


@pytest.mark.parametrize(
    ("name", "raw", "value"),
    [
        ("rate", 0.4, 0.4),
        ("rate", 1, 1.0),
        ("rate", 5.0, 5.0),  # the domain bounds what is searched, not what is fixed
        ("decay", 0, 0.0),
        ("signed", -3, -3.0),
        ("steps", 20, 20),
        ("limit", None, None),
        ("kind", "b", "b"),
        ("activation", "tanh", "tanh"),
        ("flag", True, True),
        ("widths", [1, 2, 3], [1, 2, 3]),
        ("widths", [], []),
        ("path", "a/b", "a/b"),
    ],
)
def test_a_literal_fixes(name, raw, value):
    node = node_of(name, raw)
    assert node == Fixed(value) and type(node.value) is type(value)


def test_what_is_not_given_takes_the_recipe_then_the_default():
    assert node_of("rate", MISSING) == Fixed(0.01)
    assert node_of("rate", MISSING, 0.3) == Fixed(0.3)
    assert node_of("widths", MISSING) == Fixed([4, 4])


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("rate", "fast", "x.rate: got the text 'fast'; allowed: a number, {search: ...} or {learn: ...}"),
        ("rate", "1e-3", "x.rate: got the text '1e-3'; allowed: a number (without the quotes)"),
        ("rate", True, "x.rate: got true; allowed: a number"),
        ("rate", math.nan, "x.rate: got .nan; allowed: a finite number"),
        ("rate", -0.1, "x.rate: got -0.1; allowed: a number, at least 0"),
        ("rate", None, "x.rate: got null; allowed: a number"),
        ("steps", 2.5, "x.steps: got 2.5; allowed: a whole number"),
        ("steps", 0, "x.steps: got 0; allowed: a whole number, at least 1"),
        ("flag", "no", "x.flag: got the text 'no'; allowed: false, true"),
        ("flag", 1, "x.flag: got 1; allowed: false, true"),
        ("kind", "c", "x.kind: no option is named 'c' (allowed: a, b)"),
        ("activation", "rlu", "x.activation: no option is named 'rlu'; did you mean 'relu'? (allowed: relu, tanh)"),
        ("widths", 4, "x.widths: got 4; allowed: a list, each item a whole number"),
        ("widths", [4, "x"], "x.widths[1]: got the text 'x'; allowed: a whole number"),
        ("path", 3, "x.path: got 3; allowed: a text or null"),
        ("rate", {"serach": {}}, "did you mean 'search'?"),
        ("rate", {"search": {}, "learn": {}}, "both searched and learned"),
    ],
)
def test_a_wrong_literal_says_what_was_given_and_what_is_allowed(name, raw, message):
    assert message in complaint(name, raw)


def test_search_alone_takes_the_fields_own_range():
    assert node_of("rate", "search") == Searched("x.rate", Real(1e-4, 1.0, log=True), 0.01)
    assert node_of("steps", "search") == Searched("x.steps", Int(1, 10), 5)
    assert list(node_of("kind", "search").options) == ["a", "b"]
    assert list(node_of("activation", {"search": {}}).options) == ["relu", "tanh"]
    assert list(node_of("flag", "search").options) == ["false", "true"]


def test_part_of_a_range_keeps_the_rest_of_the_fields_own():
    assert node_of("rate", {"search": {"high": 0.5}}) == Searched("x.rate", Real(1e-4, 0.5, log=True), 0.01)
    assert node_of("signed", {"search": {"low": 0.5}}).default == 0.75  # the default 0 is not in it: the middle


def test_a_searched_default():
    assert node_of("rate", {"search": {"low": 0.1, "high": 1, "default": 0.4}}).default == 0.4
    assert node_of("rate", {"search": {"low": 0.1, "high": 1}}).default == pytest.approx(math.sqrt(0.1))
    assert node_of("rate", {"search": {"low": 0.1, "high": 1}}, 0.2).default == 0.2
    assert node_of("kind", {"search": {"options": ["a", "b"], "default": "b"}}).default == "b"
    assert node_of("kind", {"search": ["b", "a"]}).default == "a"  # the field's own


def test_options_may_be_literals_or_knobs():
    node = node_of(
        "rate", {"search": [0.1, {"search": {"low": 0.2, "high": 0.4}}, "learn", {"learn": {"per": "layer"}}]}
    )
    assert list(node.options) == ["0.1", "search", "learn", "learn(per=layer)"]
    assert node.options["search"].name == "x.rate[search]"
    assert isinstance(node.options["learn"], LearnedKnob)
    assert list(node_of("widths", {"search": [[], [64, 64]]}).options) == ["[]", "[64, 64]"]


@pytest.mark.parametrize(
    ("name", "search", "message"),
    [
        ("rate", {"low": 1, "high": 0.1}, "low must be below high, got low 1.0 and high 0.1; swap them"),
        ("rate", {"low": 0.1, "high": 0.1}, "fix the value instead"),
        ("signed", {"low": 0, "high": 1, "log": True}, "a log range must start above 0, got low 0.0"),
        ("signed", {"low": -1, "high": 1, "log": True}, "a log range must start above 0, got low -1.0"),
        ("rate", {"low": -1, "high": 1}, "x.rate.search.low: got -1.0; allowed: a number, at least 0"),
        ("rate", {"lo": 0.1}, "no part of a range is named 'lo'; did you mean 'low'?"),
        ("rate", {"low": "a", "high": 1}, "x.rate.search.low: got the text 'a'"),
        ("rate", {"low": 0.1, "high": 1, "default": 3}, "x.rate.search.default: got 3.0; allowed: from 0.1 to 1.0"),
        ("rate", {"low": 0.1, "high": 1, "log": "yes"}, "x.rate.search.log: got the text 'yes'"),
        ("steps", {"low": 1.5, "high": 3}, "x.steps.search.low: got 1.5; allowed: a whole number"),
        ("rate", [], "give a list of at least one option"),
        ("rate", [0.1, 0.1], "x.rate.search[1]: 0.1 is given twice"),
        ("rate", [0.1, "x"], "x.rate.search[1]: got the text 'x'"),
        ("rate", True, "got true; give a range {low: ..., high: ...} or a list of options"),
        ("kind", {"low": 1}, "kind has no range: give a list of options, each a, b"),
        ("widths", {}, "widths has no range"),
        ("free", {}, "free has no range of its own"),
        ("kind", {"options": ["a"], "default": "c"}, "x.kind.search.default: no option is named 'c'"),
    ],
)
def test_a_wrong_search_says_what_to_do(name, search, message):
    assert message in complaint(name, {"search": search})


def test_learn():
    place = Place(("x", "rate"), "x.rate")
    assert node_of("rate", "learn") == LearnedKnob(place, Fixed(0.01), Fixed("scalar"))
    assert node_of("rate", {"learn": {"start": 1, "per": "layer"}}) == LearnedKnob(place, Fixed(1.0), Fixed("layer"))
    assert node_of("rate", {"learn": None}, 0.4).start == Fixed(0.4)
    assert node_of("rate", "learn", {"learn": {"start": 0.2, "per": "layer"}}) == LearnedKnob(
        place, Fixed(0.2), Fixed("layer")
    )
    assert node_of("rate", MISSING, Learned(per="layer")).per == Fixed("layer")


def test_a_learned_knobs_own_settings_may_be_searched():
    node = node_of("rate", {"learn": {"start": "search", "per": "search"}})
    assert node.start == Searched("x.rate.start", Real(1e-4, 1.0, log=True), 0.01)
    assert set(domains(node)) == {"x.rate.start", "x.rate.per"}


def test_a_positive_knob_never_starts_at_zero():
    assert node_of("decay", "learn").start.value == pytest.approx(math.sqrt(1e-6 * 0.1))
    assert "start above 0" in complaint("decay", {"learn": {"start": 0}})


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("steps", "steps is a whole number, which no gradient can move; fix it or search it, such as {search: {low: 1"),
        ("kind", "kind is not a number, so no gradient can move it; fix it or search it, such as {search: [a, b]}"),
        ("flag", "flag is not a number"),
        ("signed", "signed cannot be learned"),
        ("widths", "widths is not a number"),
    ],
)
@pytest.mark.parametrize("raw", ["learn", {"learn": {}}])
def test_what_cannot_be_learned_is_refused(name, reason, raw):
    assert reason in complaint(name, raw)


@pytest.mark.parametrize(
    ("learn", "message"),
    [
        ({"strat": 1}, "no setting of a learned knob is named 'strat'; did you mean 'start'?"),
        ({"per": "laier"}, "x.rate.learn.per: no option is named 'laier'; did you mean 'layer'?"),
        ({"start": "x"}, "x.rate.learn.start: got the text 'x'"),
    ],
)
def test_a_wrong_learn(learn, message):
    assert message in complaint("rate", {"learn": learn})


numbers = st.floats(min_value=1e-6, max_value=1e6)


@given(numbers, numbers, st.booleans())
def test_any_range_gives_its_ends_and_a_default_inside(low, high, log):
    assume(low < high)
    node = node_of("rate", {"search": {"low": low, "high": high, "log": log}})
    assert low <= node.default <= high
    assert [resolve_node(node, suggest, {}) for suggest in CORNERS][1:] == [low, high]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["search", "learn", "low", "a"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["search", "learn", "low", "high", "log", "start", "per", "options"]), inner)
    ),
    max_leaves=8,
)


@given(st.sampled_from(sorted(FIELDS)), json_values)
def test_any_value_gives_a_knob_or_a_complaint(name, raw):
    node, problems = parse(name, raw)
    if not problems:
        for suggest in CORNERS:
            resolve_node(node, suggest, {})


leaves = st.one_of(
    st.floats(min_value=0, max_value=10),
    st.just("search"),
    st.just("learn"),
    st.builds(lambda a, b: {"search": {"low": a, "high": a + b}}, numbers, st.floats(min_value=1, max_value=9)),
)
trees = st.recursive(
    leaves, lambda inner: st.lists(inner, min_size=1, max_size=4, unique_by=repr).map(lambda many: {"search": many})
)


class Drawn(Suggest):
    """Draws from hypothesis and checks what it is asked."""

    def __init__(self, data):
        self.data, self.asked = data, {}

    def value(self, name, domain):
        assert name not in self.asked
        if isinstance(domain, Choice):
            assert len(set(domain.options)) == len(domain.options)
            drawn = st.sampled_from(domain.options)
        else:
            assert domain.low < domain.high and (not domain.log or domain.low > 0)
            drawn = (st.integers if isinstance(domain, Int) else st.floats)(domain.low, domain.high)
        self.asked[name] = value = self.data.draw(drawn)
        return value


@given(trees, st.data())
def test_a_tree_of_choices_gives_a_value_in_its_domain(tree, data):
    node, problems = parse("rate", tree)
    assume(not problems)  # equal numbers of other types in one list
    suggest, knobs = Drawn(data), {}
    value = resolve_node(node, suggest, knobs)
    assert knobs == suggest.asked
    assert set(knobs) <= set(domains(node))
    if isinstance(value, dict):
        assert set(value["learn"]) == {"start", "per"}
    else:
        assert isinstance(value, float) and value >= 0


@dataclass(frozen=True)
class FormsConfig:
    count: int | tuple[Annotated[int, Bounds(at_least=1)], ...] = 1
    lists: Annotated[str | Mapping[str, Any] | None, Added()] = None


def test_a_field_may_take_several_forms():
    fields = fields_of(FormsConfig)
    assert fields["count"].allowed() == "a whole number or a list, each item a whole number"
    assert literal(fields["count"], [2, 3]) == [2, 3] and literal(fields["count"], 4) == 4
    with pytest.raises(Unfit, match="got 0; allowed: a whole number, at least 1") as error:
        literal(fields["count"], [2, 0])
    assert error.value.path == (1,)
    assert fields["lists"].allowed() == "a text or a mapping of names to values or null"
    assert [literal(fields["lists"], raw) for raw in ("a", {"a": [1]}, None)] == ["a", {"a": [1]}, None]
    with pytest.raises(Unfit, match="got 3; allowed: a text or a mapping"):
        literal(fields["lists"], 3)
    assert fields["lists"].added and not fields["count"].added


def test_every_kind_of_field_is_read():
    assert FIELDS["limit"].nullable and FIELDS["limit"].domain == Int(1, 10)
    assert FIELDS["rate"].learnable and not FIELDS["signed"].learnable
    assert FIELDS["widths"].items.types == (int,)
    assert isinstance(node_of("flag", {"search": [True, False]}), Alternatives)


@pytest.mark.parametrize(
    ("raw", "names", "default"),
    [
        ("search", ["letter0", "letter1"], "a-b"),
        ({"search": {"length": 3}}, ["letter0", "letter1", "letter2"], "c-c-c"),
        ({"search": {"parts": ["b"]}}, ["letter0", "letter1"], "b-b"),
        ({"search": {"length": 3, "default": "b-a-c"}}, ["letter0", "letter1", "letter2"], "b-a-c"),
    ],
)
def test_a_word_is_searched_part_by_part(raw, names, default):
    node, knobs = node_of("word", raw), {}
    assert resolve_node(node, None, knobs) == default
    assert [name.rpartition("word.")[2] for name in knobs] == names
    assert list(knobs) == list(domains(node))
    options = tuple(node.parts[0].options)
    assert all(domain == Choice(options) for domain in domains(node).values())
    ends = [resolve_node(node, suggest, {}).split("-") for suggest in CORNERS[1:]]
    assert ends == [[options[0]] * len(names), [options[-1]] * len(names)]


def test_the_lengths_of_a_word_are_listed_in_their_order():
    assert complaint("long", {"search": {"length": 4}}).endswith("got 4; allowed: 1, 3, 10")


def test_whole_words_may_be_options_too():
    assert isinstance(node_of("word", {"search": ["a-b", "c-c"]}), Alternatives)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length": 4}, "got 4; allowed: 2, 3"),
        ({"parts": ["a", "d"]}, "no option is named 'd'"),
        ({"parts": ["a", "a"]}, "give at least one option, each once"),
        ({"parts": []}, "give at least one option, each once"),
        ({"lengths": 2}, "did you mean 'length'"),
        ({"default": "a-b-c"}, "give 2 of a, b, c with '-' between them"),
        ({"default": "a-c", "parts": ["a", "b"]}, "give 2 of a, b with '-' between them"),
    ],
)
def test_a_wrong_search_of_a_word_is_refused(settings, message):
    _, problems = parse("word", {"search": settings})
    assert len(problems) == 1
    assert message in problems[0]
