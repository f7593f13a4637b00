"""Evaluations as a table, bare answers beside refined ones."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from igrpo_jax.records.runlog import plain
from igrpo_jax.rewards.score import VERIFIERS

EQUAL = 0.02
"""Share of sampled tokens by which bare and refined may differ and count as equally dear."""


def evaluations_table(lines: Sequence[Mapping[str, Any]]) -> Table:
    """Lines of eval.jsonl, a row each: which answers, how many, how good, how long, and how many tokens they took."""
    table = Table(title="evaluation", caption="\n".join(settings_of(lines)), box=box.SIMPLE_HEAD, padding=0)
    table.add_column("set", overflow="fold")
    table.add_column("answers", overflow="fold")
    for name in ("n", "avg@n", "pass@n", "maj@n", "length", "cut", "tokens"):
        table.add_column(name, justify="right", no_wrap=True)
    for line in lines:
        scores, n = line["scores"], line["n"]
        place = next(name for name in scores if name.endswith(f"avg@{n}")).removesuffix(f"avg@{n}")
        error = scores.get(f"{place}avg@{n}_stderr")
        average = f"{scores[f'{place}avg@{n}']:.3f}" + (f"±{error:.3f}" if error is not None else "")
        vote = scores.get(f"maj@{n}")
        cells = (f"{line['set']} ({line['problems']})", mode_of(line), n, average, f"{scores[f'{place}pass@{n}']:.3f}")
        cells += ("" if vote is None else f"{vote:.3f}", f"{scores['mean_length']:.1f}")
        cells += (f"{scores['clipped_ratio']:.3f}", f"{line['sampled_tokens']:,}")
        table.add_row(*map(plain, cells))
    return table


def mode_of(line: Mapping[str, Any]) -> str:
    """How the answers of a line were made, in words.

    >>> mode_of({"mode": "refined", "select": "best", "gold": True, "num_drafts": 4, "rounds": 2})
    'refined: best of 4 (gold), 2 rounds'
    """
    if line["select"] is None:
        return line["mode"]
    rounds = f", {line['rounds']} rounds" if line["rounds"] > 1 else ""
    return f"{line['mode']}: {line['select']} of {line['num_drafts']}{' (gold)' if line['gold'] else ''}{rounds}"


def settings_of(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Under which settings, a line each, and what the marks in the table mean."""
    known = "temperature {temperature}, top-p {top_p}, up to {max_completion_length} tokens, ".format_map
    said = sorted(
        {(known(line) if line["temperature"] is not None else "") + f"counted by {counted(line)}" for line in lines}
    )
    return said + ["(gold): the choice sees the gold answer, an upper bound"] * any(line["gold"] for line in lines)


def counted(line: Mapping[str, Any]) -> str:
    """What decides which answers are right."""
    place = next(name for name in line["scores"] if name.endswith("pass@1")).rpartition("/")[0]
    return place or " and ".join(name for name in line["reward"] if name in VERIFIERS)


def difference(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """By how much bare and refined answers of each set differ in sampled tokens; a warning where it is too much."""
    said = []
    bare = {line["set"]: line["sampled_tokens"] for line in lines if line["mode"] == "bare"}
    for line in lines:
        if line["mode"] == "refined" and line["set"] in bare:
            ours, theirs = bare[line["set"]], line["sampled_tokens"]
            text = f"{line['set']}: sampled tokens bare {ours:,}, refined {theirs:,} ({ours / theirs - 1:+.2%})"
            few = "; so few and long answers cannot be dealt out more evenly: take more problems or samples"
            said.append(f"warning: {text}{few}" if abs(ours / theirs - 1) > EQUAL else text)
    return said
