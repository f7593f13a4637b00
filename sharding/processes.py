"""Several processes as one run: how they find each other, and how they agree on what no device carries."""

import contextlib
import ctypes
import os
import pickle
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any

import jax

CONNECT = 120
"""Seconds within which all processes of a run must have found each other."""

HEARTBEAT = 30
"""Seconds of silence after which a process counts as dead and the others end."""

PATIENCE = 1800
"""Seconds to wait for what another process has to say, grading a step's completions included."""

FORGET = 256
"""Agreements after which those so far are deleted from the coordinator's store."""

LEAVING = "igrpo_jax/leaving"
"""Where the store has why the run is to leave."""

ORPHANED = (
    "error: JAX's runtime has ended this process, as it does where another process of this run has ended or is silent "
    "(its reason stands above); start all of them again, status 75: the run resumes from its last checkpoint\n"
)
"""What a process says that JAX ends, nearly always because another one is gone."""


class Processes:
    """The processes of a run; each runs the same host code, and what they must agree on goes through here.

    Messages travel through the coordinator's key-value store and not through the devices, so any thread may send them.

    Attributes:
      index: this process, from 0.
      count: how many there are.
    """

    def __init__(self, index: int = 0, count: int = 1, client: Any = None):
        self.index, self.count = index, count
        self._client = client
        self._told: dict[str, int] = {}

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes records."""
        return self.index == 0

    def agree(self, value: int) -> int:
        """The first process's value, for decisions that hang on time. Calls must come in the same order everywhere."""
        if self.count == 1:
            return value
        answer = self._tell("agree", value, [0])[0]
        told = self._told["agree"]
        if told % FORGET == 0:
            self.share("heard", told)  # by this all have heard what the first process has said so far
            if self.first:
                for number in range(told - FORGET + 1, told + 1):
                    self._client.key_value_delete(_key("agree", number, 0))
        return answer

    def share(self, name: str, value: Any) -> list[Any]:
        """Every process's value, in order. Calls of one name must come in the same order everywhere.

        Raises:
          ValueError: a process does not answer.
        """
        return [value] if self.count == 1 else self._tell(name, value, range(self.count))

    def divide(self, name: str, work: Callable[[Any], Sequence[Any]], items: Sequence[Any]) -> list[Any]:
        """`list(work(items))`, one result an item: every process does a part of them and learns the others' results.

        Raises:
          ValueError: the work fails in any process, or the processes have different numbers of items.
        """
        if self.count == 1:
            return list(work(items))
        part = items[len(items) * self.index // self.count : len(items) * (self.index + 1) // self.count]
        done, failure = [], None
        try:
            done = list(work(part)) if part else []
        except Exception as raised:  # whatever it is: the others wait for an answer
            failure = raised
        words = None if failure is None else str(failure) or repr(failure)
        answers = self.share(name, (len(items), done, words))
        for index, (size, _, error) in enumerate(answers):
            if error is not None:
                raise ValueError(error) from failure
            if size != len(items):
                raise ValueError(
                    f"process {index} has {size} {name} where process {self.index} has {len(items)}; "
                    "give all of them the same data"
                )
        return [result for _, results, _ in answers for result in results]

    def once(self, action: Callable[[], None]) -> None:
        """Lets the first process do something while the others wait; its error is raised in all.

        Raises:
          ValueError: also where the action raised an OSError.
        """
        error = None
        if self.first:
            try:
                action()
            except (ValueError, OSError) as raised:
                error = str(raised)
        error = self.share("once", error)[0]
        if error is not None:
            raise ValueError(error)

    def tell(self, reason: str) -> None:
        """Lets all processes know why they are to leave; from any thread, as often as one likes."""
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            self._client.key_value_set_bytes(LEAVING, f"process {self.index}: {reason}".encode(), True)

    def told(self) -> str:
        """What some process has told all, nothing so far."""
        try:
            return self._client.key_value_try_get_bytes(LEAVING).decode()
        except jax.errors.JaxRuntimeError:
            return ""

    def completed(self, step: int) -> None:
        """Says after which step this process is about to save before it leaves."""
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            self._client.key_value_set_bytes(_key("completed", 0, self.index), str(step).encode(), True)

    def meet(self, step: int, seconds: float) -> bool:
        """Whether all processes say that they save after the same step, within so many seconds."""
        self.completed(step)
        until = time.monotonic() + seconds
        for process in range(self.count):
            left = max(until - time.monotonic(), 0.001)
            try:
                said = self._client.blocking_key_value_get_bytes(_key("completed", 0, process), int(1000 * left))
            except jax.errors.JaxRuntimeError:
                return False
            if int(said) != step:
                return False
        return True

    def warn(self, text: str | None) -> None:
        """Says what is odd, if anything is, in the first process."""
        if text and self.first:
            print(f"warning: {text}", file=sys.stderr)

    def _tell(self, name: str, value: Any, speakers: Any) -> list[Any]:
        number = self._told[name] = self._told.get(name, 0) + 1
        if self.index in speakers:
            self._client.key_value_set_bytes(_key(name, number, self.index), pickle.dumps(value))
        values = []
        for process in speakers:
            try:
                values.append(self._client.blocking_key_value_get_bytes(_key(name, number, process), PATIENCE * 1000))
            except jax.errors.JaxRuntimeError as error:
                raise ValueError(
                    f"process {process} of {self.count} has not answered ({name}: {str(error).splitlines()[0]}); "
                    "see its output, and start all processes again: the run resumes from its last checkpoint"
                ) from error
        if len(values) == self.count and number > 1:
            # All have said this much, so all have heard what came before.
            self._client.key_value_delete(_key(name, number - 1, self.index))
        return [pickle.loads(value) for value in values]


def _key(name: str, number: int, process: int) -> str:
    """Where the store has what a process says in the `number`-th exchange of a name."""
    return f"igrpo_jax/{name}/{number}/{process}"


def connect(coordinator: str = "", index: int | None = None, count: int | None = None) -> Processes:
    """Joins the other processes of this run, if the arguments or the environment say that there are any.

    Must be called before anything asks for a device.

    Args:
      coordinator: host:port of process 0; "auto" to have JAX find it in the environment; "" for that only where
        `expected` says so.
      index: of this process.
      count: of all processes.

    Raises:
      ValueError: some arguments are missing, or the others cannot be reached.
    """
    explicit = coordinator not in ("", "auto")
    if explicit != (index is not None) or explicit != (count is not None):
        raise ValueError("--coordinator, --process-id and --num-processes belong together; give all three or none")
    if not explicit and coordinator != "auto" and not expected(os.environ):
        return Processes()
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # JAX's own service takes SIGTERM for itself and leaves it at a line in the log; see `igrpo_jax.edges.preemption`.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        if explicit:
            assert index is not None and count is not None
            if not 0 <= index < count:
                raise ValueError(f"--process-id {index} is not one of 0 to {count - 1}; see --num-processes")
            if index:
                reach(coordinator, CONNECT)
            # JAX ends a process whose partners do not come in time without raising anything.
            print(
                f"process {index} of {count} waits up to {CONNECT} s for the others at {coordinator}", file=sys.stderr
            )
        jax.distributed.initialize(
            coordinator if explicit else None, count, index, initialization_timeout=CONNECT,
            heartbeat_timeout_seconds=HEARTBEAT, shutdown_timeout_seconds=HEARTBEAT,
        )  # fmt: skip
    except (RuntimeError, OSError) as error:
        raise ValueError(
            f"the processes of this run did not find each other ({str(error).splitlines()[0]}); start all of them "
            f"within {CONNECT} s, with one --coordinator and one --num-processes"
        ) from error
    from jax._src import distributed  # the client has no public name

    state = distributed.global_state
    end_clearly(75)
    return Processes(state.process_id, state.num_processes, state.client)


def end_clearly(status: int) -> None:
    """Has a process that JAX aborts say `ORPHANED` and end with this status, after JAX's own lines.

    JAX finds out that another process is gone and aborts in a thread of its own: no Python exception, and its callback
    for Python (`missed_heartbeat_callback`) crashes in jaxlib 0.10. An abort in what Python has called is another
    fault, and ends the process as ever.
    """

    def aborted(_: int) -> None:
        if sys._getframe().f_back is not None:
            return  # `abort` goes on without a handler
        os.write(2, ORPHANED.encode())
        os._exit(status)

    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(aborted)
    _HANDLERS.append(handler)  # the C library keeps no reference
    c_signal = ctypes.CDLL(None).signal
    c_signal.argtypes, c_signal.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p
    c_signal(signal.SIGABRT, ctypes.cast(handler, ctypes.c_void_p))


_HANDLERS: list[Any] = []


def expected(environment: Any) -> bool:
    """Whether Slurm, Open MPI or a TPU pod has started several processes; `jax.distributed` finds out the rest.

    >>> expected({"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "n[1-2]", "SLURM_NTASKS": "16", "SLURM_PROCID": "3"})
    True
    >>> expected({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "16"}), expected({"TPU_WORKER_HOSTNAMES": "localhost"})
    (False, False)
    """
    several = lambda name: environment.get(name, "1").isdecimal() and int(environment.get(name, "1")) > 1
    slurm = "SLURM_STEP_NODELIST" in environment and "SLURM_PROCID" in environment and several("SLURM_NTASKS")
    pod = "," in environment.get("TPU_WORKER_HOSTNAMES", "") or several("MEGASCALE_NUM_SLICES")
    return slurm or pod or several("OMPI_COMM_WORLD_SIZE")


def reach(address: str, seconds: float) -> None:
    """Waits until something listens at host:port.

    Raises:
      ValueError: nothing does in time, or it is no address.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"--coordinator {address!r} is not host:port")
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise ValueError(
                    f"--coordinator {address} cannot be reached within {seconds:.0f} s ({error}); start process 0 "
                    "there, and check the address and the firewall"
                ) from None
            time.sleep(0.5)


def versions() -> dict[str, str]:
    """Of Python and the packages that must be the same in all processes."""
    names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    python = ".".join(map(str, sys.version_info[:2]))
    return {"Python": python} | {name: metadata.version(name) for name in names}


def compare(processes: Processes, facts: dict[str, Any]) -> None:
    """Compares facts, a flat dict, between all processes.

    Raises:
      ValueError: one differs from the first process's; in every process.
    """
    everyone = processes.share("facts", facts)
    for index, theirs in enumerate(everyone):
        for name in facts:
            if theirs.get(name) != everyone[0].get(name):
                raise ValueError(
                    f"process {index} has {name} {theirs.get(name)!r} and process 0 has {everyone[0].get(name)!r}; "
                    "start all processes with the same command and environment"
                )
