"""A judge that tests talk to: a real HTTP server on the loopback address, as good or as bad as each test wants."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from igrpo_jax.config import JudgeConfig


def completion(text: str, **changes: Any) -> dict[str, Any]:
    """A reply of `/chat/completions`."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": changes.pop("finish_reason", "stop")}
    usage = {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107}
    return {"id": "1", "object": "chat.completion", "created": 0, "model": "j", "choices": [choice], "usage": usage}


@dataclass
class Reply:
    """What the server does with one request.

    Attributes:
      body: a text, or what JSON is made of.
      status: HTTP status; 0 closes the connection without a word.
      headers: besides Content-Length.
      seconds: before anything is sent.
      drip: seconds between two bytes of the body.
    """

    body: Any = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})
    seconds: float = 0.0
    drip: float = 0.0


@dataclass
class Server:
    """A running server and what it has seen.

    Attributes:
      url: what `judge.base_url` is to be.
      requests: the bodies of all requests, as they came.
      keys: their Authorization headers.
      most: the most requests that were in work at once.
      answer: what is done with a request: gets its text, and how many came before.
    """

    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    most: int = 0
    answer: Callable[[str, int], Reply] = lambda text, before: Reply(completion("Fine.\nScore: 8"))

    def config(self, **changes: Any) -> JudgeConfig:
        """A config of this judge, patient for seconds and without a cache."""
        settings = {"base_url": self.url, "model": "j", "timeout": 5.0, "retries": 0, "cache": ""} | changes
        return JudgeConfig(**settings)


@contextmanager
def running() -> Iterator[Server]:
    """A server for as long as the block lasts."""
    server, lock, now = Server(), threading.Lock(), 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            nonlocal now
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                before, now = len(server.requests), now + 1
                server.requests.append(body)
                server.keys.append(self.headers.get("Authorization"))
                server.most = max(server.most, now)
            try:
                self.send(server.answer(body["messages"][0]["content"], before))
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # the client has lost its patience
            finally:
                with lock:
                    now -= 1

        def send(self, reply: Reply) -> None:
            if not ended.wait(reply.seconds) and reply.status:
                data = (reply.body if isinstance(reply.body, str) else json.dumps(reply.body)).encode()
                self.send_response(reply.status)
                for name, value in {**reply.headers, "Content-Length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                for i in range(len(data) if reply.drip else 0):
                    self.wfile.write(data[i : i + 1])
                    if ended.wait(reply.drip):
                        return
                self.wfile.write(data if not reply.drip else b"")
            else:
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

    ended = threading.Event()
    with Quiet(("127.0.0.1", 0), Handler) as http:
        server.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
        thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            ended.set()
            http.shutdown()
            thread.join()


def stopwatch() -> Callable[[], float]:
    """Seconds since it was made."""
    began = time.perf_counter()
    return lambda: time.perf_counter() - began
