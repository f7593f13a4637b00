"""What an item might do to its process and to the socket that leads to the trainer; run in grader processes."""

import ctypes
import gc
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time

from igrpo_jax.rewards.workers import wire


def _socket() -> socket.socket:
    (found,) = [thing for thing in gc.get_objects() if isinstance(thing, socket.socket) and thing.fileno() >= 0]
    return found


def _number() -> bytes:
    """The number of the request that is worked on, out of the worker's own variables."""
    frame = sys._getframe()
    while "number" not in frame.f_locals:
        frame = frame.f_back
    return frame.f_locals["number"]


def half_a_header(value):
    _socket().send(b"abc")
    return value


def half_an_answer_and_silence(value):
    _socket().send(wire.ANSWER.pack(_number(), 100) + b"half")
    time.sleep(600)


def oversized_header(value):
    _socket().send(wire.ANSWER.pack(_number(), 2**50))
    return value


def several_answers(value):
    body = wire.encode(value)
    _socket().send(2 * (wire.ANSWER.pack(_number(), len(body)) + body))
    return value


class Payload:
    """Runs a command where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def crafted_pickle(path):
    body = pickle.dumps(Payload(path))
    _socket().send(wire.ANSWER.pack(_number(), len(body)) + body)
    time.sleep(600)


def floods(value):
    while True:
        _socket().send(b"\0" * 2**16)


def closes_everything(value):
    os.closerange(0, 256)
    return value


def forks_and_returns(value):
    os.fork()
    return value


def forks_unseen_and_returns(value):
    ctypes.CDLL(None).fork()
    return value


def leaves_a_writer(value):
    """A copy of the process writes to the socket later, when another item is worked on."""
    connection = _socket()
    if ctypes.CDLL(None).fork() == 0:
        time.sleep(0.3)
        connection.send(wire.ANSWER.pack(b"0" * 16, 12) + wire.encode(999))
        os._exit(0)
    return value


def slow_identity(value):
    time.sleep(0.3)
    return value


def leaves_an_alarm(value):
    signal.signal(signal.SIGALRM, lambda *_: os._exit(9))
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    return value


def stops_itself(value):
    os.kill(os.getpid(), signal.SIGSTOP)
    return value


def stops_its_guard(value):
    os.kill(os.getppid(), signal.SIGSTOP)
    time.sleep(600)


def ends_its_guard(value):
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(600)


def dies_once(path):
    """Killed as if from outside, the first time that it is tried."""
    if not os.path.exists(path):
        with open(path, "w"):
            pass
        os.kill(os.getpid(), signal.SIGKILL)
    return 7


def starts_far_children():
    """Processes in sessions of their own, one an orphan; their ids."""
    direct = subprocess.Popen(["sleep", "600"], start_new_session=True).pid
    command = (
        "import subprocess; print(subprocess.Popen(['sleep', '600'], start_new_session=True, stdout=-3, stderr=-3).pid)"
    )
    orphan = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, start_new_session=True)
    return [os.getpid(), direct, int(orphan.stdout)]


def told_to_leave(value):
    os.kill(os.getpid(), signal.SIGTERM)
    return value


def identity(value):
    return value


def a_thread_that_exits(value):
    threading.Thread(target=lambda: os._exit(5)).start()
    time.sleep(600)
