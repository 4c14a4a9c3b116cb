"""The schema: a field is declared once, and files, checks and documents follow."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepcost.reading import Moment, Reading
from stepcost.row import ROW, checked, schema_page
from stepcost.schema import REQUIRED, Change, Count, Share, build, clean, fields_of, stored

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, kw_only=True)
class Inner:
    """Parts."""

    name: str = stored("a name", default=REQUIRED)
    held_bytes: int | None = stored("bytes")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One field of each type."""

    kept_bytes: int | None = stored("bytes", gated=True)
    left: Change | None = stored("either sign")
    images: Count | None = stored("one or more")
    busy_share: Share | None = stored("a share")
    wait_s: float | None = stored("seconds")
    fits: bool | None = stored("yes or no")
    rule: str | None = stored("a word", absent="none")
    inner: Inner | None = stored("parts")
    list: tuple[Inner, ...] = stored("parts", default=())
    parts_s: dict[str, float] = stored("seconds by part", default={})
    note: str = "not stored"


GOOD = {
    "kept_bytes": 7,
    "left": -3,
    "images": 1,
    "busy_share": 1.0,
    "wait_s": 0.5,
    "fits": False,
    "rule": "linear",
    "inner": {"name": "one", "held_bytes": 2},
    "list": [{"name": "two", "held_bytes": None}],
    "parts_s": {"fork": 0.25},
}


def test_schema_page_is_made_from_the_declarations():
    """docs/schema.md is what the declarations say: python -m stepcost.row > docs/schema.md."""
    assert (ROOT / "docs" / "schema.md").read_text() == schema_page()


def test_what_is_of_its_type_is_kept():
    """Every value of the declared type is kept as it is, without a complaint."""
    assert clean(GOOD, fields_of(Sample)) == (GOOD, [])


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("kept_bytes", -1),
        ("kept_bytes", 1.5),
        ("kept_bytes", 2**63),
        ("kept_bytes", True),
        ("left", 0.5),
        ("left", "1"),
        ("images", 0),
        ("busy_share", 1.01),
        ("wait_s", float("nan")),
        ("wait_s", float("inf")),
        ("fits", 1),
        ("rule", 7),
        ("inner", {"held_bytes": 2}),
        ("inner", []),
        ("list", [{"held_bytes": 2}]),
        ("list", "two"),
        ("parts_s", [1]),
    ],
)
def test_what_is_not_of_its_type_is_left_out_and_told(name, bad):
    """A value of another type becomes None with one line that names the field; the rest stays."""
    kept, complaints = clean(GOOD | {name: bad}, fields_of(Sample))
    assert kept == GOOD | {name: None}
    (line,) = complaints
    assert line.startswith(f"{name} left out: ")


def test_unknown_fields_and_absent_values_are_dropped():
    """A field that nobody declared is dropped, and a value that means 'none' is none."""
    assert clean({"other": 1, "rule": "none", "note": "x"}, fields_of(Sample)) == ({"rule": None}, [])


def test_units_follow_from_names():
    """A unit is read off the name: bytes, seconds and shares; a figure is a single number."""
    found = {name: (one.unit, one.is_figure) for name, one in fields_of(Sample).items()}
    assert found["kept_bytes"] == ("bytes", True)
    assert found["wait_s"] == ("s", True)
    assert found["busy_share"] == ("share", True)
    assert found["images"] == ("", True)
    assert found["fits"] == ("", False)
    assert found["parts_s"] == ("s", False)
    assert fields_of(Sample)["kept_bytes"].gated
    assert not fields_of(Sample)["wait_s"].gated


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
