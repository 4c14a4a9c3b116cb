"""The schema: a field is declared once, and files, checks and documents follow."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepcost.reading import Moment, Reading
from stepcost.row import ROW, checked
from stepcost.schema import REQUIRED, Change, Count, Share, build, clean, fields_of, stored
from stepcost.schema_page import schema_page

ROOT = Path(__file__).parent.parent


def declared():
    """Declare a part with a field of each type, and a part inside it: anew, not once as this file is read."""

    @dataclass(frozen=True, kw_only=True)
    class Inner:
        name: str = stored("a name", default=REQUIRED)
        place: int = stored("a place", default=REQUIRED)
        rate: float | None = stored("must be given, and may be none", default=REQUIRED)
        held_bytes: int | None = stored("bytes")
        sizes: tuple[int, ...] = stored("none unless given", default=())
        reasons: dict[str, str] = stored("none unless given", default={})

    @dataclass(frozen=True, kw_only=True)
    class Sample:
        kept_bytes: int | None = stored("bytes", gated=True, follows="shapes")
        left: Change | None = stored("either sign")
        images: Count | None = stored("one or more")
        busy_share: Share | None = stored("a share")
        wait_s: float | None = stored("seconds")
        clock: float | None = stored("a clock", unit="MHz")
        fits: bool | None = stored("yes or no", identifies=True)
        rule: str | None = stored("a word", absent="none", default="linear")
        inner: Inner | None = stored("parts")
        list: tuple[Inner, ...] = stored("parts", default=())
        parts_s: dict[str, float] = stored("seconds by part", default={})
        extra: dict[str, Any] | None = stored("whatever it holds")
        note: str = "not stored"

    return Sample, Inner


ONE = {"name": "one", "place": 1, "rate": 0.5, "held_bytes": 2, "sizes": [3, 4], "reasons": {"a": "b"}}
TWO = {"name": "two", "place": 2, "rate": None, "held_bytes": None, "sizes": [], "reasons": {}}
GOOD = {
    "kept_bytes": 7,
    "left": -3,
    "images": 1,
    "busy_share": 1.0,
    "wait_s": 0.5,
    "clock": 1980,
    "fits": False,
    "rule": "linear",
    "inner": ONE,
    "list": [ONE, TWO],
    "parts_s": {"fork": 0.25},
    "extra": {"any": [{"thing": None}]},
}
NO_SIZE = "not a number that a size, count or time can have"


@pytest.fixture
def known():
    """The stored fields of the part above."""
    return fields_of(declared()[0])


def test_schema_page_is_made_from_the_declarations():
    """docs/schema.md is what the declarations say: python -m stepcost.row > docs/schema.md."""
    assert (ROOT / "docs" / "schema.md").read_text() == schema_page()


def test_what_is_of_its_type_is_kept(known):
    """Every value of the declared type is kept as it is, without a complaint."""
    assert clean(GOOD, known) == (GOOD, [])


@pytest.mark.parametrize(
    ("name", "bad", "why"),
    [
        ("kept_bytes", -1, NO_SIZE),
        ("kept_bytes", 1.5, "not a whole number"),
        ("kept_bytes", 2**63, NO_SIZE),
        ("kept_bytes", True, "not a number"),
        ("left", 0.5, "not a whole number"),
        ("left", -(2**63), NO_SIZE),
        ("left", "1", "not a number"),
        ("left", True, "not a number"),
        ("images", 0, "zero"),
        ("busy_share", 1.01, "not a fraction between 0 and 1"),
        ("wait_s", float("nan"), NO_SIZE),
        ("wait_s", float("inf"), NO_SIZE),
        ("fits", 1, "neither true nor false"),
        ("rule", 7, "not text"),
        ("inner", {"held_bytes": 2}, "without name, place"),
        ("inner", {"name": "one", "place": -1}, "without place"),
        ("inner", [], "not an object"),
        ("list", [{"held_bytes": 2}], "a list with nothing usable in it"),
        ("list", "two", "not a list"),
        ("parts_s", [1], "not an object"),
        ("extra", [1], "not an object"),
    ],
)
def test_what_is_not_of_its_type_is_left_out_and_told(known, name, bad, why):
    """A value of another type becomes None with one line that says what it is not; the rest stays."""
    assert clean(GOOD | {name: bad}, known) == (GOOD | {name: None}, [f"{name} left out: {why}"])


def test_bad_items_cost_themselves_only(known):
    """Of a list, a map or a part inside it the bad items are left out, those after them too are kept."""
    values = {
        "list": [ONE, {"held_bytes": 2}, TWO],
        "parts_s": {"fork": 0.25, "build": "long", "first\nstep": 1.5},
        "inner": {"name": "one", "place": 1, "held_bytes": -1, "unknown": 1},
    }
    nothing = dict.fromkeys(("rate", "held_bytes", "sizes", "reasons"))
    assert clean(values, known)[0] == {
        "list": [ONE, TWO],
        "parts_s": {"fork": 0.25, "first step": 1.5},
        "inner": {"name": "one", "place": 1} | nothing,
    }
    assert clean({"list": []}, known) == ({"list": []}, [])


def test_unknown_fields_and_absent_values_are_dropped(known):
    """A field that nobody declared is dropped, and a value that means 'none' is none."""
    assert clean({"other": 1, "rule": "none", "note": "x"}, known) == ({"rule": None}, [])


def test_text_is_one_line_of_so_many_letters(known):
    """Line ends and what cannot be printed are blanks, none at the ends; 2,000 letters are kept."""
    assert clean({"rule": " a\nb\x07 \ud800"}, known)[0] == {"rule": "a b"}
    assert clean({"rule": 2001 * "x"}, known)[0] == {"rule": 2000 * "x"}


def test_units_and_figures_follow_from_the_declaration(known):
    """A unit is read off the name unless given; a figure is a single number; parts are dataclasses."""
    found = {name: (one.unit, one.is_figure) for name, one in known.items()}
    assert found == {
        "kept_bytes": ("bytes", True),
        "left": ("", True),
        "images": ("", True),
        "busy_share": ("share", True),
        "wait_s": ("s", True),
        "clock": ("MHz", True),
        "fits": ("", False),
        "rule": ("", False),
        "inner": ("", False),
        "list": ("", False),
        "parts_s": ("s", False),
        "extra": ("", False),
    }
    assert [name for name, one in known.items() if one.parts] == ["inner", "list"]
    assert {known["inner"].parts.__name__, known["list"].parts.__name__} == {"Inner"}


def test_what_is_declared_of_a_field_is_told(known):
    """Its meaning, whether it identifies a row or is gated, what it follows from: a build unless said."""
    assert known["kept_bytes"].meaning == "bytes"
    assert [name for name, one in known.items() if one.gated] == ["kept_bytes"]
    assert [name for name, one in known.items() if one.identifies] == ["fits"]
    assert {name: one.follows for name, one in known.items() if one.follows != "build"} == {
        "kept_bytes": "shapes"
    }
    assert [(name, one.absent) for name, one in known.items() if one.absent is not None] == [("rule", "none")]


def test_a_field_that_is_not_given_has_its_default():
    """None unless declared otherwise, a dict of its own each time; what is required cannot be left out."""
    sample, inner = declared()
    one, other = sample(), sample()
    assert (one.kept_bytes, one.rule, one.list, one.parts_s) == (None, "linear", (), {})
    one.parts_s["fork"] = 1.0
    assert other.parts_s == {}
    with pytest.raises(TypeError, match="rate"):
        inner(name="one", place=1)


def test_a_type_without_a_rule_is_refused():
    """A stored field of a type that no file can hold is refused where it is declared, by its type."""

    @dataclass(frozen=True, kw_only=True)
    class Odd:
        held: set[int] = stored("sizes", default=REQUIRED)

    with pytest.raises(TypeError, match=r"no rule for the stored type set\[int\]"):
        fields_of(Odd)


def test_a_time_is_never_gated_as_bytes_are():
    """Declaring a gated time is refused: its noise would fail every comparison."""

    @dataclass(frozen=True, kw_only=True)
    class Timed:
        wait_s: float | None = stored("seconds", gated=True)

    with pytest.raises(TypeError, match="wait_s"):
        fields_of(Timed)


def test_plain_data_become_a_reading_again():
    """What a row stores of a reading makes the same reading, moments and ledger included."""
    stored_reading = {"source": "measured", "fits": True, "moments": [{"moment": "model loaded"}]}
    made = build(Reading, stored_reading)
    assert made == Reading(source="measured", fits=True, moments=(Moment(moment="model loaded"),))
    with pytest.raises(TypeError):
        build(Reading, {"source": "measured"})
    odd = {"moment": "model loaded", "b": 1, "a": 2}
    with pytest.raises(TypeError, match=r"^Moment has no field a, b$"):
        build(Reading, stored_reading | {"moments": [odd]})


def test_only_declared_fields_are_stored():
    """A row refuses a field that is not declared, and says so by its name."""
    assert checked({"question": "2a"}) == {"question": "2a"}
    assert checked({"clocks": {"throttle_reasons": ["power cap"]}})["throttled"] is True
    with pytest.raises(KeyError, match="energy_of_a_step"):
        checked({"energy_of_a_step": 1})


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(
        st.sampled_from(sorted(ROW)),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
            ),
            max_leaves=8,
        ),
    )
)
def test_cleaning_twice_changes_nothing(values):
    """Whatever a row holds, what is kept is kept again, and every complaint names a field that is none."""
    kept, complaints = clean(values, ROW)
    assert clean(kept, ROW) == (kept, [])
    for line in complaints:
        assert kept[line.partition(" ")[0]] is None
