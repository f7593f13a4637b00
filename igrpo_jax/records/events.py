"""Scalars as the bytes of a TensorBoard event file."""

import struct
import time
from collections.abc import Mapping
from typing import Any


def beginning(step: int) -> bytes:
    """The first events of a file; what earlier files have of `step` and later steps is not shown any more."""
    made = _messages()
    start = made.SessionLog(status=made.SessionLog.START)
    return b"".join(
        _framed(event)
        for event in (
            made.Event(wall_time=time.time(), file_version="brain.Event:2"),
            made.Event(wall_time=time.time(), step=step, session_log=start),
        )
    )


def scalars(step: int, values: Mapping[str, float]) -> bytes:
    """One event for each value."""
    from tensorboardX.summary import scalar

    made = _messages()
    return b"".join(
        _framed(made.Event(wall_time=time.time(), step=step, summary=scalar(name, value)))
        for name, value in values.items()
    )


def _messages() -> Any:
    """TensorBoard's messages, whose classes are made when the module is imported."""
    from tensorboardX.proto import event_pb2

    return event_pb2


def _framed(event: Any) -> bytes:
    """Length, its checksum, the event, its checksum: TensorFlow's record format."""
    from tensorboardX.record_writer import masked_crc32c

    data = event.SerializeToString()
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc32c(length)) + data + struct.pack("<I", masked_crc32c(data))
