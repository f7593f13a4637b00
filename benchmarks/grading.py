r"""Grading: completions a second in grader processes, the latency of one, what poison costs, and whether it is right.

    make bench BENCHMARKS=benchmarks/grading.py
    PYTHONPATH=. python benchmarks/grading.py --workers 1,2,4 --batch 2000

A batch mixes what models write: numbers, fractions, LaTeX, wrong answers, none, and what does not parse. No two items
are the same, for pairs that were compared before cost little. Every contestant grades the same new batch a round, in
turns; `in process` compares without a pool. Poison are answers that no computer evaluates: a batch in which 5 % of the
items are replaced by them is graded in turns with the one without. Labelled completions are graded where they are there
(`gsm8k_labelled_completions.jsonl` in `../shared/data`, beside the repository). One JSON line at the end.
"""

import argparse
import json
import os
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.contest import machine
from benchmarks.worker import versions
from igrpo_jax.config import RewardConfig
from igrpo_jax.rewards import GraderPool, Rewards, compare, extract_answer, load_rewards
from igrpo_jax.rewards.compare import warm_up

POISON = (
    lambda n: f"9^{{9^{{9^{{{n}}}}}}}",
    lambda n: f"{n}99999999!",
    lambda n: rf"(({n}!)!)!",
    lambda n: rf"\binom{{10^{{{n}}}}}{{5 \cdot 10^{{{n - 1}}}}}",
    lambda n: rf"\sum_{{k=1}}^{{10^{{{n}}}}} k^k",
    lambda n: rf"e^{{e^{{e^{{{n}}}}}}}",
    lambda n: rf"(x+{n})^{{9^{{9^9}}}}",
    lambda n: "(" * 200 + str(n) + ")" * 200,
    lambda n: r"\sqrt{" * 100 + str(n) + "}" * 100,
    lambda n: "+".join(rf"\sqrt[{n + i}]{{{i}!}}" for i in range(2, 60)),
)
"""Answers that no computer evaluates, or only slowly: towers, factorials, binomials, series, depth, many roots."""

LABELLED = Path(__file__).resolve().parents[2] / "shared" / "data" / "gsm8k_labelled_completions.jsonl"

FILLER = "We add both sides, divide by 12 and find that the claim holds for n = 3. " * 20
"""Reasoning in front of every answer, about 300 tokens."""


class Item(NamedTuple):
    """A completion, its gold answer, and what kind of item it is."""

    completion: str
    gold: str
    kind: str


KINDS: dict[str, tuple[int, Callable[[int, int, int], tuple[str, str]]]] = {
    "number": (30, lambda a, b, c: (f"{a * b:,}", f"{a * b}")),
    "number, wrong": (25, lambda a, b, c: (f"{a * b + c}", f"{a * b}")),
    "fraction": (10, lambda a, b, c: (rf"\frac{{{a * c}}}{{{b * c}}}", rf"\frac{{{a}}}{{{b}}}")),
    "root": (8, lambda a, b, c: (rf"\frac{{{a}\sqrt{{{b * c * c}}}}}{{7}}", rf"\frac{{{a * c}\sqrt{{{b}}}}}{{7}}")),
    "root, wrong": (6, lambda a, b, c: (rf"{a + 1}\sqrt{{{b}}}", rf"{a}\sqrt{{{b}}}+{c}")),
    "polynomial": (4, lambda a, b, c: (f"x^2+{a + b}x+{a * b}+{c}", f"(x+{a})(x+{b})+{c}")),
    "interval": (4, lambda a, b, c: (rf"\left({a}, \infty\right)", f"x>{a}")),
    "tuple": (3, lambda a, b, c: (rf"\left(\frac{{{a}}}{{2}},{b}\right)", rf"({a / 2},{b})")),
    "unparsable": (4, lambda a, b, c: (rf"\frac{{{a}}}{{}}" if a % 2 else rf"\foo{{{a}}}", rf"{b}\pi")),
    "no answer": (6, lambda a, b, c: ("", f"{a}")),
}
"""Answer and gold answer of each kind, and how many of a hundred items are of it."""


def batch(size: int, seed: int) -> list[Item]:
    """Items in about the proportions of `KINDS`, others for every seed."""
    draw = random.Random(seed)
    names, weights = list(KINDS), [weight for weight, _ in KINDS.values()]
    return [item(kind, draw) for kind in draw.choices(names, weights, k=size)]


def item(kind: str, draw: random.Random) -> Item:
    """One of a kind."""
    answer, gold = KINDS[kind][1](*(draw.randint(2, limit) for limit in (999, 999, 20)))
    text = f"{FILLER}The answer is \\boxed{{{answer}}}." if answer else "I cannot tell, for nothing is known about it."
    return Item(text, gold, kind)


def graded(rewards: Rewards, items: Sequence[Item]) -> list[str]:
    """The verdicts' reasons."""
    completions = [item.completion for item in items]
    return rewards.score([""] * len(items), completions, {"answer": [item.gold for item in items]}).reasons


def graded_here(items: Sequence[Item]) -> list[str]:
    """The same without any pool."""
    answers = [extract_answer(item.completion) for item in items]
    pairs = zip(answers, items, strict=True)
    return ["no_answer" if answer is None else compare(answer, item.gold).reason for answer, item in pairs]


def throughput(contestants: dict[str, Callable], size: int, rounds: int) -> dict[str, dict[str, object]]:
    """Seconds a batch of every contestant, in turns; verdicts that differ between them are counted."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    differing = dict.fromkeys(contestants, 0)
    for turn in range(rounds + 1):
        items, first = batch(size, turn), None
        for name, grade in contestants.items():
            started = time.perf_counter()
            reasons = grade(items)
            seconds[name].append(time.perf_counter() - started)
            first = first or reasons
            differing[name] += sum(a != b for a, b in zip(first, reasons, strict=True))
    found = {}
    for name, (start, *runs) in seconds.items():
        median = statistics.median(runs)
        found[name] = {
            "seconds": round(median, 3), "runs": [round(s, 3) for s in runs], "per_s": round(size / median, 1),
            "first_s": round(start, 3), "other_verdicts": differing[name],
        }  # fmt: skip
    return found


def latency(rewards: Rewards, size: int) -> dict[str, dict[str, float]]:
    """Milliseconds of items scored one by one, by kind and of all, as `{"p50", "p99", "count"}`."""
    times: dict[str, list[float]] = {"all": []}
    for one in batch(size, seed=1000):
        started = time.perf_counter()
        graded(rewards, [one])
        elapsed = 1e3 * (time.perf_counter() - started)
        times["all"].append(elapsed)
        times.setdefault(one.kind, []).append(elapsed)
    return {kind: percentiles(values) for kind, values in times.items()}


def percentiles(values: list[float]) -> dict[str, float]:
    """Median and 99th percentile, which is the largest of less than 100."""
    values = sorted(values)
    place = lambda share: round(values[min(len(values) - 1, int(share * len(values)))], 3)
    return {"p50": place(0.5), "p99": place(0.99), "count": len(values)}


def poisoned(items: Sequence[Item], share: float) -> list[Item]:
    """The items with the first of every 1 / share replaced by one that no computer evaluates."""
    step = round(1 / share)
    return [
        Item(rf"\boxed{{{POISON[i // step % len(POISON)](9 + i % 90)}}}", one.gold, "poison") if i % step == 0 else one
        for i, one in enumerate(items)
    ]


def poison_factor(rewards: Rewards, size: int, rounds: int, share: float = 0.05) -> dict[str, object]:
    """How much longer a batch takes with a share of poison, the median of new batches in turns."""
    seconds: dict[str, list[float]] = {"clean": [], "poisoned": []}
    reasons: list[str] = []
    for turn in range(rounds + 1):
        clean, other = batch(size, 2000 + 2 * turn), poisoned(batch(size, 2001 + 2 * turn), share)
        for name, items in (("clean", clean), ("poisoned", other)):
            started = time.perf_counter()
            reasons = graded(rewards, items)
            seconds[name].append(time.perf_counter() - started)
    medians = {name: round(statistics.median(values[1:]), 3) for name, values in seconds.items()}
    factor = round(medians["poisoned"] / medians["clean"], 2)
    return {**medians, "factor": factor, "share": share, "timeouts": reasons.count("timeout")}


def agreement(rewards: Rewards, path: Path) -> dict[str, int] | None:
    """How many labelled completions are graded as their publisher did; None where they are not there."""
    if not path.exists():
        return None
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    columns = {"answer": [str(row["answer"]) for row in rows]}
    scores = rewards.score([""] * len(rows), [row["completion"] for row in rows], columns)
    agreeing = sum(bool(score) == bool(row["is_correct"]) for score, row in zip(scores.total, rows, strict=True))
    return {"agreeing": agreeing, "of": len(rows)}


def deadline_hit(deadline: float) -> dict[str, object]:
    """Seconds that one hanging item costs beyond its deadline, in itself and before the next item is graded."""
    with GraderPool(1, deadline, RewardConfig.memory_mb) as pool:
        pool.prepare(warm_up)
        pool.map(time.sleep, [(0,)])
        started = time.perf_counter()
        (verdict,) = pool.map(time.sleep, [(100 * deadline,)])
        hit = time.perf_counter()
        pool.map(time.sleep, [(0,)])
        end = time.perf_counter()
    return {
        "reason": verdict.reason,
        "beyond_deadline_s": round(hit - started - deadline, 3),
        "next_s": round(end - hit, 3),
    }


def main() -> None:
    """Measures and prints."""
    options = arguments()
    pools = {int(count): f"workers {count}" for count in options.workers.split(",")}
    result: dict[str, dict] = {}
    rewards = {count: load_rewards(RewardConfig(workers=count, deadline=options.deadline)) for count in pools}
    try:
        warm_up()
        grade = {name: lambda items, count=count: graded(rewards[count], items) for count, name in pools.items()}
        result["batches"] = throughput(grade | {"in process": graded_here}, options.batch, options.rounds)
        few = rewards[min(pools)]
        result["latency_ms"] = latency(few, options.batch)
        result["deadline_hit"] = deadline_hit(options.deadline)
        result["poison"] = {name: poison_factor(rewards[n], options.batch, options.rounds) for n, name in pools.items()}
        result["labelled"] = agreement(few, LABELLED) or {}
    finally:
        for each in rewards.values():
            each.close()
    show(result, options)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    facts = machine(cores) | {"versions": versions("mpmath")}
    print(json.dumps({"benchmark": "grading", **facts, **vars(options), **result}))


def show(result: dict[str, dict], options: argparse.Namespace) -> None:
    """Tables."""
    print(f"{f'batches of {options.batch}':20s}{'seconds':>9s}{'items/s':>10s}{'first s':>9s}{'other':>7s}")
    for name, entry in result["batches"].items():
        line = f"{name:20s}{entry['seconds']:9.2f}{entry['per_s']:10.1f}{entry['first_s']:9.2f}"
        print(f"{line}{entry['other_verdicts']:7d}")
    print(f"\n{'one by one':20s}{'p50 ms':>9s}{'p99 ms':>10s}{'items':>9s}")
    for kind, entry in result["latency_ms"].items():
        print(f"{kind:20s}{entry['p50']:9.2f}{entry['p99']:10.2f}{entry['count']:9.0f}")
    print(f"\na deadline of {options.deadline} s hit: {result['deadline_hit']}")
    for name, entry in result["poison"].items():
        print(
            f"{name}, {100 * entry['share']:.0f} % poison: {entry['poisoned']:.2f} s, not {entry['clean']:.2f} s, "
            f"{entry['factor']:.2f} times as long, {entry['timeouts']} timeouts"
        )
    if result["labelled"]:
        print(f"labelled completions: {result['labelled']['agreeing']} of {result['labelled']['of']} agree")
    print(flush=True)


def arguments() -> argparse.Namespace:
    """The sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", default="1,2", help="numbers of grader processes, with commas")
    parser.add_argument("--batch", type=int, default=2000, help="completions graded together")
    parser.add_argument("--deadline", type=float, default=RewardConfig.deadline, help="seconds for one item")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
