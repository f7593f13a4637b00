"""Public sets by name: where each is published, and which columns of it hold the question and the gold answer.

A copy of a set has other column names than its publisher's at times, so a preset names all that are known, the best
first; the first that a table has is taken.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from igrpo_jax.data.spec import nearest, parse_spec


class Preset(NamedTuple):
    """One public set.

    Attributes:
      hub: its id on the Hugging Face hub.
      split: split, there and in tensorflow-datasets.
      name: configuration on the hub.
      questions: columns that may hold the question.
      answers: columns that may hold the gold answer as it is.
      after: marker that the gold answer follows in such a column, as `####` in GSM8K.
      solutions: columns with a worked solution, for copies without an answer: the gold answer is in the last box.
    """

    hub: str
    split: str
    name: str | None = None
    questions: Sequence[str] = ("problem", "question")
    answers: Sequence[str] = ("answer",)
    after: str | None = None
    solutions: Sequence[str] = ("solution",)


PRESETS: Mapping[str, Preset] = {
    "aime24": Preset("HuggingFaceH4/aime_2024", "train"),
    "aime25": Preset("math-ai/aime25", "test"),
    "amc23": Preset("math-ai/amc23", "test"),
    "gsm8k": Preset("openai/gsm8k", "test", name="main", after="####"),
    "math500": Preset("HuggingFaceH4/MATH-500", "test"),
    "minerva": Preset("math-ai/minervamath", "test"),
    "math": Preset("DigitalLearningGmbH/MATH-lighteval", "train"),
    "acereason": Preset("nvidia/AceReason-Math", "train"),
}
"""The six sets that the paper evaluates on, and the two that it trains on: MATH's training split and AceReason-Math."""

PLACES = ("hf", "tfds", "file")
"""Options of a preset that say where to read it in place of its publisher's, by the kind of source."""


def is_preset(spec: str) -> bool:
    """Whether a source is a bare name, like `aime24` or `gsm8k?split=train`, and not `kind:name`."""
    return ":" not in spec.partition("?")[0]


def opened(spec: str) -> tuple[str, str, dict[str, str], Preset]:
    """Kind, name and options of the source that a preset stands for, and the preset.

    `aime24` is read from the hub; `aime24?file=/data/aime24.jsonl` from files of that form, `gsm8k?tfds=gsm8k` from
    tensorflow-datasets, `aime24?hf=me/copy` from a copy. Other options are the source's own and win over the preset's.

    Raises:
      ValueError: no preset has this name, or two places are given.
    """
    name = spec.partition("?")[0]
    if name not in PRESETS:
        raise ValueError(
            f"no set is called {name!r}; {nearest(name, PRESETS)}; other sources look like kind:name?option=value, "
            "for example file:x.jsonl"
        )
    preset, options = PRESETS[name], parse_spec(f"preset:{spec}")[2]
    places = [place for place in PLACES if place in options]
    if len(places) > 1:
        raise ValueError(f"{spec}: {' and '.join(places)} both say where to read it; keep one")
    kind = places[0] if places else "hf"
    place = options.pop(kind, preset.hub)
    defaults: dict[str, Any] = {"label": name}
    if kind != "file":
        defaults["split"] = preset.split
    if place == preset.hub and preset.name:
        defaults["name"] = preset.name
    return kind, place, defaults | options, preset


def columns_of(preset: Preset, present: Sequence[str], *, own_answer: bool = False) -> dict[str, Any]:
    """Where a table of these columns has question and gold answer, as the options of a source say it.

    With `own_answer` the user names the column of the answer, to which the preset's rule need not apply.

    >>> columns_of(PRESETS["minerva"], ["problem", "solution"])
    {'question': 'problem', 'answer': 'solution', 'answer_boxed': True}
    """
    found: dict[str, Any] = {"question": _first(preset.questions, present)}
    if own_answer:
        return found
    if any(column in present for column in preset.answers):
        found |= {"answer": _first(preset.answers, present)}
        return found | ({"answer_after": preset.after} if preset.after else {})
    if any(column in present for column in preset.solutions):
        return found | {"answer": _first(preset.solutions, present), "answer_boxed": True}
    return found | {"answer": preset.answers[0]}


def _first(wanted: Sequence[str], present: Sequence[str]) -> str:
    """The first wanted column that there is; where there is none, the first, for the error that names it."""
    return next((column for column in wanted if column in present), wanted[0])
