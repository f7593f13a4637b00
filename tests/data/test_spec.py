import datetime
import enum
from collections.abc import Sequence
from typing import Literal, Optional

import pytest

from igrpo_jax.data.spec import convert, nearest, parse_spec


class Color(enum.Enum):
    RED = "red"


def test_parts_of_a_source():
    assert parse_spec("arithmetic:mix") == ("arithmetic", "mix", {})
    assert parse_spec("tfds:a/b:1.0.0?split=train[:10%]") == ("tfds", "a/b:1.0.0", {"split": "train[:10%]"})
    assert parse_spec("file:/a%3Fb.jsonl?answer_after=####&answer=a%26b") == (
        "file",
        "/a?b.jsonl",
        {"answer_after": "####", "answer": "a&b"},
    )
    assert parse_spec("gym:basic_arithmetic?operators=+,-")[2] == {"operators": "+,-"}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("mix", "must look like kind:name"),
        (":mix", "must look like kind:name"),
        ("file:", "must look like kind:name"),
        ("file:a?limit", "must look like option=value"),
        ("file:a?limit=1&limit=2", "'limit' is given twice"),
    ],
)
def test_malformed_sources(spec, message):
    with pytest.raises(ValueError, match=message):
        parse_spec(spec)


@pytest.mark.parametrize(
    ("text", "annotation", "value"),
    [
        ("3", int, 3),
        ("1e-3", float, 1e-3),
        ("a", str, "a"),
        ("1", bool, True),
        ("False", bool, False),
        ("none", Optional[int], None),  # noqa: UP045
        ("3", int | None, 3),
        ("b", Literal["a", "b"], "b"),
        ("+, -", tuple[str, ...], ("+", "-")),
        ("+", tuple, ("+",)),
        ("0.5,2", list[float], [0.5, 2.0]),
        ("x,y", Sequence[str], ("x", "y")),
        ("a,b", list[str] | None, ["a", "b"]),
        ("red", Color, Color.RED),
        ("2024-02-29", datetime.date, datetime.date(2024, 2, 29)),
        ("12:30", datetime.time, datetime.time(12, 30)),
    ],
)
def test_values(text, annotation, value):
    found = convert(text, annotation)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "annotation", "message"),
    [
        ("3.5", int, "a whole number"),
        ("x", float, "a number"),
        ("maybe", bool, "true or false"),
        ("c", Literal["a", "b"], "one of a, b"),
        ("blue", Color, "one of red"),
        ("{}", dict, "leave it at its default"),
        ("1", list[tuple[int, int]], "leave it at its default"),
    ],
)
def test_values_that_do_not_fit(text, annotation, message):
    with pytest.raises(ValueError, match=message):
        convert(text, annotation)


def test_nearest_names_one_or_lists_some():
    assert nearest("splt", ["split", "seed"]) == "did you mean 'split'?"
    assert nearest("xyz", ["b", "a"]) == "known: a, b"
    assert nearest("xyz", [f"{i:02}" for i in range(30)]).endswith("22, 23, ...")
