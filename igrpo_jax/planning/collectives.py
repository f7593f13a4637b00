"""What a compiled program sends between devices, read from its HLO text."""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute", "ragged-all-to-all")

BITS = {"pred": 8, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "f8e4m3fn": 8, "f8e5m2": 8, "s16": 16, "u16": 16, "bf16": 16,
        "f16": 16, "s32": 32, "u32": 32, "f32": 32, "s64": 64, "u64": 64, "f64": 64, "c64": 64}  # fmt: skip

_HEAD = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) .*\{$")
_KIND = re.compile(rf" ({'|'.join(KINDS)})(-start)?\(")
_CALLED = re.compile(r"(?:body|calls|to_apply|branch_computations|true_computation|false_computation)=\{?([%\w.\-, ]+)")
_TURNS = re.compile(r'known_trip_count"?:\{"n":"(\d+)"')
_ARRAY = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,]*)\]")


class Collective(NamedTuple):
    """One instruction.

    Attributes:
      kind: one of `KINDS`.
      bytes: of the larger of its operands and results, on one device.
      turns: how often it runs, as far as the compiler tells.
      text: the HLO line.
    """

    kind: str
    bytes: int
    turns: int
    text: str


def collectives(hlo: str) -> tuple[list[Collective], int]:
    """Every collective of a module with the loops around it, and how many loops have an unknown number of turns."""
    bodies: dict[str, list[str]] = {}
    name = entry = ""
    for line in hlo.splitlines():
        head = _HEAD.match(line)
        if head:
            name = head[1]
            bodies[name] = []
            entry = name if line.startswith("ENTRY") else entry
        elif name:
            bodies[name].append(line)
    found: list[Collective] = []
    unknown = 0

    def walk(computation: str, turns: int) -> None:
        nonlocal unknown
        for line in bodies.get(computation, ()):
            kind = _KIND.search(line)
            if kind:
                found.append(Collective(kind[1], size(line), turns, line.strip()))
                continue
            inner = turns
            if " while(" in line:
                known = _turns(line, bodies)
                unknown += known is None
                inner *= known or 1
            for names in _CALLED.findall(line):
                for called in names.split(","):
                    walk(called.strip(" %{}"), inner)

    walk(entry, 1)
    return found, unknown


def _turns(line: str, bodies: Mapping[str, list[str]]) -> int | None:
    """How often a loop turns: as the compiler says, or by a counter from 0 that is compared with a constant."""
    known = _TURNS.search(line)
    if known:
        return int(known[1])
    condition, body = (bodies.get(_named(rf"{part}=%?", line), []) for part in ("condition", "body"))
    root = next((text for text in condition if "ROOT" in text and "direction=LT" in text), "")
    compared = re.search(r" compare\(%?([\w.\-]+), %?([\w.\-]+)\)", root)
    limit = _constant(compared[2], condition) if compared else None
    if compared is None or limit is None:
        return None
    # A loop that the compiler has unrolled counts by more than one.
    place = re.search(r"index=(\d+)", _defined(compared[1], condition))
    results = re.search(r" tuple\(([^)]*)\)", next((text for text in body if "ROOT" in text), ""))
    counter = results[1].split(", ")[int(place[1])].split("%")[-1] if place and results else ""
    added = re.search(r" add\(%?[\w.\-]+, %?([\w.\-]+)\)", _defined(counter, body))
    return -(-limit // ((_constant(added[1], body) if added else None) or 1))


def _named(before: str, line: str) -> str:
    """The name that stands behind a pattern."""
    found = re.search(before + r"([\w.\-]+)", line)
    return found[1] if found else ""


def _defined(name: str, lines: list[str]) -> str:
    """The line that defines a value."""
    return next((text for text in lines if name and f"%{name} = " in text), "")


def _constant(name: str, lines: list[str]) -> int | None:
    """The number that a name stands for."""
    found = re.search(r" constant\((\d+)\)", _defined(name, lines))
    return int(found[1]) if found else None


def size(text: str) -> int:
    """Bytes of a collective's operands or results, whichever are larger.

    >>> size("%x = bf16[8,128]{1,0} all-gather(%a), dimensions={0}")
    2048
    >>> size("%y = (f32[4]{0}, f32[2]{0}, f32[32]{0}, f32[16]{0}) all-gather-start(%a, %b), dimensions={0}")
    192
    >>> size("%z = f32[4]{0} reduce-scatter(%a), replica_groups=[2,4]<=[8], dimensions={0}")
    64
    """
    kind = _KIND.search(text)
    sizes = [count * BITS[dtype] // 8 for count, dtype in arrays(text)]
    if kind is None or not sizes:
        return 0
    name, started, half = kind[1], bool(kind[2]), len(sizes) // 2
    if started and name != "all-reduce":  # its result holds the operands too
        if name == "all-gather":
            return sum(sizes[half:])
        return sum(sizes[:half]) if name == "reduce-scatter" else max(sizes)
    return sum(sizes) * (_group(text) if name == "reduce-scatter" else 1)


def _group(text: str) -> int:
    """Devices that one collective joins, in each of the ways in which HLO writes it; 1 if it does not say."""
    counted = re.search(r"replica_groups=\[\d+,(\d+)\]", text)
    if counted:
        return int(counted[1])
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", text)
    if listed:
        return len(listed[1].split(","))
    mesh = re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", text)
    axes = dict(re.findall(r"'(\w+)'=(\d+)", mesh[1])) if mesh else {}
    return math.prod(int(axes[name]) for name in re.findall(r"'(\w+)'", mesh[2])) if mesh else 1


def arrays(text: str) -> list[tuple[int, str]]:
    """Elements and dtype of every array that an instruction's result is made of.

    >>> arrays("%y = (f32[4,2]{1,0}, bf16[]) all-reduce(f32[4,2] %a, bf16[] %b), to_apply=%add")
    [(8, 'f32'), (1, 'bf16')]
    """
    result = _KIND.split(text.partition(" = ")[2])[0]
    shapes = [(dtype, dims) for dtype, dims in _ARRAY.findall(result) if dtype in BITS]
    return [(math.prod(int(dim) for dim in dims.split(",") if dim), dtype) for dtype, dims in shapes]


def traffic(hlo: str) -> tuple[dict[str, float], int]:
    """Bytes that one device receives through each kind of collective, and how many loops were counted once.

    What is all-reduced is received twice: its parts to be added up, and their sums.
    """
    found, unknown = collectives(hlo)
    total: dict[str, float] = {}
    for one in found:
        received = one.bytes * one.turns * (2 if one.kind == "all-reduce" else 1)
        total[one.kind] = total.get(one.kind, 0.0) + float(received)
    return total, unknown
