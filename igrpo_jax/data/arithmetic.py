"""The demo's own task: one-digit products and small sums, enumerated, with a split that never shares operands."""

import hashlib
from collections.abc import Iterator
from typing import Literal, get_args

from igrpo_jax.data.rows import Rows
from igrpo_jax.data.spec import nearest

Operation = Literal["sum", "product", "mix"]


def read_arithmetic(
    operation: str,
    /,
    *,
    split: Literal["train", "test", "all"] = "train",
    min_product_operand: int = 2,
    max_product_operand: int = 9,
    min_sum_operand: int = 1,
    max_sum_operand: int = 15,
) -> Rows:
    """Enumerates `What is 7 * 8?` and `What is 12 + 9?` over ordered pairs of operands.

    A quarter of the unordered pairs {a, b} is for testing. Which ones depends on the pair alone, so 7 * 8, 8 * 7, 7 + 8
    and 8 + 7 are in the same part, whatever the ranges. In `mix` products and sums alternate; the fewer of the two come
    round again, as rows with ids of their own, until all of the others have been.

    Raises:
      ValueError: for another operation, or ranges that leave nothing.
    """
    if operation not in get_args(Operation):
        raise ValueError(f"unknown operation {operation!r}; {nearest(operation, get_args(Operation))}")
    products = _questions("*", min_product_operand, max_product_operand, split)
    sums = _questions("+", min_sum_operand, max_sum_operand, split)
    parts = {"sum": [sums], "product": [products], "mix": [products, sums]}[operation]
    if not all(parts):
        raise ValueError("these operand ranges leave no pair of operands; widen them")
    size = len(parts) * max(map(len, parts))

    def read(index: int) -> dict[str, str]:
        part = parts[index % len(parts)]
        return part[index // len(parts) % len(part)]

    return Rows(f"arithmetic_{operation}", size, ("question", "answer"), read, generated=True)


def _questions(sign: str, low: int, high: int, split: str) -> list[dict[str, str]]:
    """One row an ordered pair, in a fixed order that looks random, so that the first rows are not the easy ones."""
    pairs = sorted(_pairs(low, high, split), key=lambda pair: _digest(f"{pair[0]} {sign} {pair[1]}"))
    return [{"question": f"What is {a} {sign} {b}?", "answer": str(a * b if sign == "*" else a + b)} for a, b in pairs]


def _pairs(low: int, high: int, split: str) -> Iterator[tuple[int, int]]:
    for a in range(low, high + 1):
        for b in range(low, high + 1):
            is_test = _digest(f"{min(a, b)}x{max(a, b)}") % 4 == 0
            if split == "all" or is_test == (split == "test"):
                yield a, b


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
