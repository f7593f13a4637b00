"""What travels between the trainer and a grader process: requests with a number, answers as JSON of one form.

A request may hold any Python object, for the trainer is trusted. An answer is read as data and never unpickled:
whatever a grader process was made to write, no more comes of it than a wrong number, and that only with the number of
its request, which is random and not told to the item.
"""

import json
import math
import socket
import struct
from typing import Any

from igrpo_jax.rewards.verdict import REASONS, Verdict

REQUEST = struct.Struct(">16scQ")
"""Number of the request, its kind, bytes that follow."""

ANSWER = struct.Struct(">16sQ")
"""Number of the request, bytes that follow."""

PREPARE, ITEM = b"p", b"i"

MAX_ANSWER = 16 * 2**20
"""Bytes of the longest answer."""

MESSAGE_LENGTH = 500
"""Characters of what an error says."""


class NoAnswer(ValueError):
    """What a process wrote is no answer to its request."""


def encode(result: Any) -> bytes:
    """A result as an answer's body.

    Raises:
      TypeError: it is neither a verdict nor plain data: None, truth values, numbers, texts, and lists and dictionaries
        of these.
      ValueError: it is too long.
    """
    if isinstance(result, Verdict):
        body = json.dumps({"verdict": [float(result), result.reason, result.parsed, result.message]})
    else:
        body = json.dumps({"value": result})
    if len(body) > MAX_ANSWER:
        raise ValueError(f"the result has {len(body)} bytes, more than {MAX_ANSWER}")
    return body.encode()


def decode(body: bytes | bytearray) -> Any:
    """The result in an answer's body.

    Raises:
      NoAnswer: it has another form.
    """
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise NoAnswer("it is no JSON") from None
    match answer:
        case {"value": value, **rest} if not rest:
            return value
        case {"verdict": [int() | float() as value, str(reason), str() | None as parsed, str(message)], **rest} if (
            not rest and reason in REASONS and math.isfinite(value)
        ):
            return Verdict(value, reason, parsed, message[:MESSAGE_LENGTH])
    raise NoAnswer("it has another form")


def read_exactly(connection: socket.socket, size: int) -> bytes:
    """So many bytes, waiting for them.

    Raises:
      EOFError: the other end was closed before.
    """
    parts = bytearray()
    while len(parts) < size:
        part = connection.recv(min(size - len(parts), 2**20))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)
