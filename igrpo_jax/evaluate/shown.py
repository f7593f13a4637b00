"""What was sampled of one problem, to be read on a terminal: question, drafts, the chosen one, refinements."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType
from rich.rule import Rule
from rich.text import Text

from igrpo_jax.edges.printable import printable
from igrpo_jax.records.runlog import plain


def record_shown(record: Mapping[str, Any], *, select: str, graded: bool) -> Iterator[RenderableType]:
    """The parts of a refined record, in reading order.

    Args:
      record: a `sample_record` whose stages are drafts and then rounds of refinements.
      select: how the drafts were chosen, for the mark of the chosen one.
      graded: whether the verdicts in it mean something.
    """
    yield Rule(plain("question"))
    yield plain(record["question"])
    if graded and record["gold"] is not None:
        yield plain(f"gold answer: {record['gold']}")
    chosen = {tuple(stage["draft"]) for stage in record["stages"] if isinstance(stage["draft"], list)}
    for number, stage in enumerate(record["stages"]):
        name = "draft" if number == 0 else "refinement" if len(record["stages"]) == 2 else f"round {number} refinement"
        for index, one in enumerate(stage["completions"]):
            mark = f" · CHOSEN ({select})" if (stage["stage"], index) in chosen else ""
            title = f"{name} {index + 1} of {len(stage['completions'])}{mark} · {facts(one, graded=graded)}"
            yield Text(f"── {printable(title)}", style="bold green" if mark else "bold")
            yield plain(one["text"])
    yield Text()


def facts(one: Mapping[str, Any], *, graded: bool) -> str:
    """What there is to say of a completion.

    >>> facts({"parsed": "4", "tokens": 9, "ended": False, "right": True, "reason": "exact"}, graded=True)
    'answer 4 · right (exact) · 9 tokens · cut by the length limit'
    """
    reason = f" ({one['reason']})" if one["reason"] else ""
    parts = [f"answer {one['parsed']}" if one["parsed"] is not None else "no answer"]
    parts += [("right" if one["right"] else "wrong") + reason] * graded + [f"{one['tokens']} tokens"]
    return " · ".join(parts + ["cut by the length limit"] * (not one["ended"]))
