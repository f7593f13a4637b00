"""Sorts out problems that cannot be trained or graded on, and says how many and why."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from igrpo_jax.data.source import Source
from igrpo_jax.edges.chat import asked
from igrpo_jax.types import Divide, Problem, Question, alone

Judge = Callable[[Sequence[Problem]], list[tuple[str | None, int]]]
"""For each problem the reason to drop it, None if there is none, and the tokens of its prompt."""

_PROBE = 256
_CHUNK = 2**14
"""Problems that are looked at together, by all processes."""

_MAX_SKIPS = 4096
EXAMPLES = 3
"""Dropped problems that are named for each reason."""

_FIXES = {
    "no question": "check data.question_column",
    "no answer": "check data.answer_column, and answer_after= and answer_boxed= of the source",
    "unparsable answer": "check data.answer_column",
    "question too long": "raise prompt.max_prompt_length",
    "broken text": "mend the file: it holds halves of characters (lone surrogates like \\ud83d)",
    "refused by the chat template": "see which roles it takes, in which order",
}


@dataclass(frozen=True, kw_only=True)
class Report:
    """What `usable` found; `str(report)` is one line.

    Attributes:
      name: name of the source.
      total: problems in the source.
      checked: problems looked at; all of them unless the source is endless.
      dropped: reason to number of problems, with at least one.
      examples: reason to the ids of the first ones, three unless more are asked for.
      longest_seen: tokens of the longest prompt among the usable problems looked at.
      longest_prompt: tokens that no prompt exceeds: the same, but for an endless source `max_prompt_length`.
      fingerprint: of the usable problems looked at, their ids, order and columns.
    """

    name: str
    total: int
    checked: int
    dropped: Mapping[str, int]
    examples: Mapping[str, tuple[int, ...]]
    longest_seen: int
    longest_prompt: int
    fingerprint: str = ""

    @property
    def kept(self) -> int:
        """Usable problems among those looked at."""
        return self.checked - sum(self.dropped.values())

    def __str__(self) -> str:
        scope = str(self.total)
        if self.checked < self.total:
            scope = f"the first {self.checked} (of {self.total}, made on demand)"
        reasons = [
            f"{count} {reason} (id{'s' if count > 1 else ''} {', '.join(map(str, self.examples[reason]))}"
            f"{', ...' if count > len(self.examples[reason]) else ''})"
            for reason, count in self.dropped.items()
        ]
        dropped = f", dropped {', '.join(reasons)}" if reasons else ""
        return f"{self.name}: kept {self.kept} of {scope}{dropped}; longest prompt {self.longest_seen} tokens"


@dataclass(frozen=True, kw_only=True)
class Kept:
    """The usable problems of a source that has been read through."""

    name: str
    source: Source
    indices: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Problem:
        if not 0 <= index < len(self.indices):
            raise IndexError(f"{self.name} has {len(self.indices)} problems, none at {index}")
        return self.source[self.indices[index]]


@dataclass(frozen=True, kw_only=True)
class Skipping:
    """An endless source in which the place of an unusable problem is taken by the next usable one."""

    name: str
    source: Source
    judge: Judge
    endless: bool = True

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Problem:
        if not 0 <= index < len(self.source):
            raise IndexError(f"{self.name} has {len(self.source)} problems, none at {index}")
        for step in range(_MAX_SKIPS):
            problem = self.source[(index + step) % len(self.source)]
            if self.judge([problem])[0][0] is None:
                return problem
        raise ValueError(f"{self.name}: no usable problem among {_MAX_SKIPS} after {index}; change its parameters")


def usable(
    source: Source,
    *,
    count_tokens: Callable[[Sequence[Question]], Sequence[int]],
    max_prompt_length: int,
    gold_is_parsable: Callable[[str], bool],
    map_golds: Callable[[Callable[[str], bool], Sequence[str]], Iterable[bool]] = map,
    divide: Divide = alone,
    examples: int = EXAMPLES,
) -> tuple[Source, Report]:
    """Leaves out problems without question or gold answer, with an unparsable one, or with too long a question.

    Ids stay as they are. Problems of reasoning-gym bring their own scorer, so their answer is not looked at. A source
    with an attribute `endless` that is True is only probed at its first 256 problems; index i then gives problem i, or
    the first usable one after it, which is decided anew each time and always the same way.

    Args:
      source: problems.
      count_tokens: tokens of the prompts that these questions become, 0 for one that becomes none; called with many
        questions at once.
      max_prompt_length: tokens that a prompt may have.
      gold_is_parsable: whether answers can be compared with this gold answer; called once for each distinct one.
      map_golds: `map`, or one that works in several processes.
      divide: lets every process of a run read and judge a part of the problems.
      examples: how many dropped problems are named for each reason.

    Returns:
      The usable problems, and what was left out.

    Raises:
      ValueError: if nothing is left.
    """
    judge = _make_judge(count_tokens, max_prompt_length, gold_is_parsable, map_golds)
    endless = bool(getattr(source, "endless", False))
    checked = min(len(source), _PROBE) if endless else len(source)
    indices, report = _scan(source, checked, judge, max_prompt_length, divide, examples)
    if not indices:
        worst = max(report.dropped, key=report.dropped.__getitem__)
        raise ValueError(f"{report}; nothing is left to train on: {_FIXES[worst]}")
    if endless:
        return Skipping(name=source.name, source=source, judge=judge), report
    return Kept(name=source.name, source=source, indices=indices), report


def _make_judge(
    count_tokens: Callable[[Sequence[Question]], Sequence[int]],
    max_prompt_length: int,
    gold_is_parsable: Callable[[str], bool],
    map_golds: Callable[[Callable[[str], bool], Sequence[str]], Iterable[bool]],
) -> Judge:
    parsable: dict[str | None, bool] = {None: True}

    def judge(problems: Sequence[Problem]) -> list[tuple[str | None, int]]:
        whole = [not _broken(problem) for problem in problems]
        counted = iter(count_tokens([problem.question for problem, good in zip(problems, whole, strict=True) if good]))
        lengths = [int(next(counted)) if good else None for good in whole]
        reasons = [_reason(p, length, max_prompt_length) for p, length in zip(problems, lengths, strict=True)]
        golds = [
            None if reason or problem.columns.get("gym_entry") is not None else problem.columns["answer"]
            for problem, reason in zip(problems, reasons, strict=True)
        ]
        new = [gold for gold in dict.fromkeys(golds) if gold is not None and gold not in parsable]
        parsable.update(zip(new, map_golds(gold_is_parsable, new), strict=True))
        reasons = [
            reason if parsable[gold] else "unparsable answer" for reason, gold in zip(reasons, golds, strict=True)
        ]
        return [(reason, length or 0) for reason, length in zip(reasons, lengths, strict=True)]

    return judge


def _scan(
    source: Source, checked: int, judge: Judge, max_prompt_length: int, divide: Divide, named: int
) -> tuple[list[int], Report]:
    """Indices of the usable problems among the first `checked`, and the report."""
    indices: list[int] = []
    examples: dict[str, list[int]] = {}
    dropped: dict[str, int] = {}
    longest = 0
    usable_ones = hashlib.sha256()

    def look(some: Sequence[int]) -> list[tuple[int, bytes, str | None, int]]:
        problems = [source[index] for index in some]
        return [(problem.id, digest(problem), *found) for problem, found in zip(problems, judge(problems), strict=True)]

    for start in range(0, checked, _CHUNK):
        found = divide("problems", look, range(start, min(start + _CHUNK, checked)))
        for index, (identity, content, reason, length) in enumerate(found, start):
            if reason is None:
                usable_ones.update(content)
                indices.append(index)
                longest = max(longest, length)
                continue
            dropped[reason] = dropped.get(reason, 0) + 1
            if dropped[reason] <= named:
                examples.setdefault(reason, []).append(identity)
    report = Report(
        name=source.name,
        total=len(source),
        checked=checked,
        dropped=dropped,
        examples={reason: tuple(ids) for reason, ids in examples.items()},
        longest_seen=longest,
        longest_prompt=max_prompt_length if checked < len(source) else longest,
        fingerprint=usable_ones.hexdigest()[:16],
    )
    return indices, report


def digest(problem: Problem) -> bytes:
    """16 bytes that another problem, or another value in one of its columns, does not have."""
    # What JSON cannot say, like an image, counts by its type: as text it might hold an address.
    text = json.dumps(
        [problem.id, problem.question, sorted(problem.columns.items(), key=lambda item: item[0])],
        skipkeys=True, default=lambda value: type(value).__name__,
    )  # fmt: skip
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _broken(problem: Problem) -> bool:
    """Whether question or answer holds half a character, which JSON can write and no tokenizer takes."""
    turns = [] if isinstance(problem.question, str) else problem.question
    texts = [asked(problem.question), problem.columns.get("answer") or "", *(turn["content"] for turn in turns)]
    return any("\ud800" <= character <= "\udfff" for text in texts if not text.isascii() for character in text)


def _reason(problem: Problem, length: int | None, max_prompt_length: int) -> str | None:
    """Why a problem of so many tokens, None if its text is broken, is unusable whatever its gold answer says."""
    if not asked(problem.question).strip():
        return "no question"
    if problem.columns.get("answer") is None and problem.columns.get("gym_entry") is None:
        return "no answer"
    if not length:
        return "broken text" if length is None else "refused by the chat template"
    return "question too long" if length > max_prompt_length else None
