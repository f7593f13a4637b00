"""Grades what was sampled once more, by another reward, without a model: from files of generations alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from igrpo_jax.drive import Reward
from igrpo_jax.evaluate.evaluate import scored
from igrpo_jax.evaluate.scores import answers_of
from igrpo_jax.records.evaluations import read_evaluations
from igrpo_jax.records.lines import read_records
from igrpo_jax.rewards import Scores

KEYS = {"problem", "question", "gold", "stages"}


def read_generations(path: Path) -> dict[tuple[int, str, str], list[dict[str, Any]]]:
    """The records of a file by step, set and mode, in order; a run's samples.jsonl is such a file, too.

    Raises:
      ValueError: there is no such file, or it holds no samples.
    """
    if not path.is_file():
        raise ValueError(f"no file of generations at {path}; evaluations write them into <workdir>/generations")
    found: dict[tuple[int, str, str], list[dict[str, Any]]] = {}
    for number, record in enumerate(read_records(path), 1):
        if not record.keys() >= KEYS or not record["stages"]:
            raise ValueError(f"{path}, record {number} holds no samples of a problem (keys {', '.join(record)})")
        drafted = record["stages"][-1]["draft"] is not None
        mode = record.get("mode") or ("refined" if drafted else "bare")
        found.setdefault((record["step"], record.get("set", "samples"), mode), []).append(record)
    if not found:
        raise ValueError(f"{path} holds no samples; give a file of <workdir>/generations, or a run's samples.jsonl")
    return found


def regraded(records: Sequence[Mapping[str, Any]], reward: Reward) -> list[dict[str, Any]]:
    """The same records with what another reward says of every completion; texts, choices and advantages stay.

    A reward gets the question, the gold answer as `answer`, and `ended`; other columns of the data are not recorded.
    """
    places = [(r, s) for r, record in enumerate(records) for s in range(len(record["stages"]))]
    groups = [records[r]["stages"][s]["completions"] for r, s in places]
    owners = [records[r] for (r, _), group in zip(places, groups, strict=True) for _ in group]
    flat = [one for group in groups for one in group]
    columns = {"answer": [owner["gold"] for owner in owners], "ended": [one["ended"] for one in flat]}
    scores = reward([owner["question"] for owner in owners], [one["text"] for one in flat], columns)
    fresh = iter(_completion(one, scores, i) for i, one in enumerate(flat))
    result = [dict(record) | {"stages": [dict(stage) for stage in record["stages"]]} for record in records]
    for (r, s), group in zip(places, groups, strict=True):
        result[r]["stages"][s]["completions"] = [next(fresh) for _ in group]
    return result


def _completion(one: Mapping[str, Any], scores: Scores, i: int) -> dict[str, Any]:
    each = {name: float(v[i]) if v[i] == v[i] else None for name, v in scores.each.items()}
    return dict(one) | {
        "reward": float(scores.total[i]),
        "rewards": each,
        "right": bool(scores.right()[1][i]),
        "parsed": scores.parsed[i],
        "reason": scores.reasons[i],
    }


def line_of(path: Path, key: tuple[int, str, str], records: Sequence[dict[str, Any]], functions: Sequence[str]) -> dict:
    """The line of eval.jsonl for records of one step, set and mode that were graded by these functions.

    What only the evaluation itself knew, as its temperature, is taken from the eval.jsonl beside the folder of the
    file; where that says nothing, it is None.
    """
    step, name, mode = key
    place = f"{path.parent.name}/{path.name}"
    known = (line for line in read_evaluations(path.parent.parent) if line.get("generations") == place)
    answers = [answers_of(record, mode) for record in records]
    unknown = (
        "select", "matched", "max_problems", "num_samples", "temperature", "top_p", "max_completion_length", "system",
        "prompt", "model", "seed",
    )  # fmt: skip
    before = next(known, dict.fromkeys(unknown) | {"gold": False, "num_drafts": 0, "rounds": 0})
    tokens = sum(one["tokens"] for record in records for stage in record["stages"] for one in stage["completions"])
    line = before | {"step": step, "set": name, "mode": mode, "reward": list(functions), "regraded": place}
    line |= {"problems": len(answers), "n": min(map(len, answers)), "sampled_tokens": tokens}
    return line | scored(records, answers)
