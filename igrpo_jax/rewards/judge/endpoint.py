"""An OpenAI-compatible endpoint: requests in flight side by side in a thread of their own, with tries and deadlines.

The client is `openai`'s. It tries again after what is too slow, 408, 409, 429, 5xx and broken connections, and waits as
long as `Retry-After` says, or longer from try to try. What it has not is a deadline for a whole reply: a server that
sends a byte now and then would be waited for without end.
"""

import asyncio
import os
import threading
from concurrent.futures import Future
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from igrpo_jax.config import JudgeConfig
from igrpo_jax.edges.printable import printable

HOPELESS = {
    401: "set the environment variable JUDGE_API_KEY (for api.openai.com, OPENAI_API_KEY will do)",
    403: "set the environment variable JUDGE_API_KEY to a key that may use this model",
    404: "it knows no such address or model; see judge.base_url, which often ends in /v1, and judge.model",
}
"""Answers after which no request will ever be answered, and what to do."""

SHOWN = 300
"""Characters of what a server says that are shown."""


class Answer(NamedTuple):
    """What the endpoint replied.

    Attributes:
      text: of the reply.
      whole: whether the reply ended by itself; False where a limit cut it.
      prompt_tokens: that the endpoint read.
      completion_tokens: that it wrote.
      retries: tries before this one.
    """

    text: str
    whole: bool
    prompt_tokens: int
    completion_tokens: int
    retries: int


class Unanswered(Exception):
    """A request got no reply, in all its tries."""


class Hopeless(ValueError):
    """No request will be answered."""


class Endpoint:
    """Asks a model behind an OpenAI-compatible endpoint."""

    def __init__(self, config: JudgeConfig):
        """Starts the thread; nothing is asked yet.

        Raises:
          ValueError: the client is not installed, or cannot be made for such an address.
        """
        try:
            import httpx2
            import openai
        except ImportError as error:
            raise ValueError(f"the reward judge needs a client ({error}); pip install 'igrpo-jax[judge]'") from error

        class Bounded(openai.DefaultAsyncHttpxClient):
            """Gives a whole reply `timeout` seconds."""

            async def send(self, request: Any, **options: Any) -> Any:
                try:
                    async with asyncio.timeout(config.timeout):
                        return await super().send(request, **options)
                except TimeoutError as error:
                    raise httpx2.ReadTimeout(f"no whole reply in {config.timeout:g} s", request=request) from error

        self._config, self._key = config, key_for(config.base_url, os.environ)
        self._slots = asyncio.Semaphore(config.concurrency)
        self._client = openai.AsyncOpenAI(
            base_url=config.base_url, api_key=self._key or "none", max_retries=config.retries, timeout=config.timeout,
            http_client=Bounded(timeout=config.timeout),
        )  # fmt: skip
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="judge", daemon=True)
        self._thread.start()

    def ask(self, text: str) -> Future[Answer]:
        """Puts a request on its way as soon as fewer than `concurrency` are.

        The future raises `Unanswered` or `Hopeless`; `cancel` and `close` cancel it.
        """
        return asyncio.run_coroutine_threadsafe(self._ask(text), self._loop)

    def cancel(self) -> None:
        """Gives up all requests that are on their way or wait; from any thread."""
        self._loop.call_soon_threadsafe(self._cancel)

    def close(self) -> None:
        """Gives up all requests and ends the thread."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._end(), self._loop)
            self._thread.join(5)

    def _run(self) -> None:
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    def _cancel(self) -> list[Any]:
        others = [task for task in asyncio.all_tasks(self._loop) if task is not asyncio.current_task(self._loop)]
        for task in others:
            task.cancel()
        return others

    async def _end(self) -> None:
        await asyncio.gather(*self._cancel(), return_exceptions=True)
        await self._client.close()
        self._loop.stop()

    async def _ask(self, text: str) -> Answer:
        import openai

        async with self._slots:
            try:
                raw = await self._client.chat.completions.with_raw_response.create(
                    model=self._config.model,
                    messages=[{"role": "user", "content": text}],
                    extra_body=dict(self._config.options),
                )
                return answer_of(raw.parse(), raw.retries_taken)
            except openai.APIStatusError as error:
                fix = HOPELESS.get(error.status_code)
                if fix:
                    raise Hopeless(
                        f"the judge {self._config.model} at {self._config.base_url} refuses: {self._told(error)}; {fix}"
                    ) from None
                raise Unanswered(self._told(error)) from None
            except openai.APIConnectionError as error:  # time-outs are among them
                raise Unanswered(self._told(error.__cause__ or error)) from None
            except Unanswered:
                raise
            except Exception as error:  # whatever the client makes of a server that talks rubbish
                raise Unanswered(f"its reply cannot be read: {self._told(error)}") from None

    def _told(self, error: BaseException) -> str:
        """What an error says, without the key, in one line."""
        words = " ".join(str(error).split()) or type(error).__name__
        return printable(words.replace(self._key, "***") if self._key else words)[:SHOWN]


def answer_of(reply: Any, retries: int) -> Answer:
    """A reply as the client gives it, which checks nothing of it.

    Raises:
      Unanswered: it is no chat completion.
    """
    choices = getattr(reply, "choices", None)
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = getattr(choice, "message", None)
    if message is None:
        raise Unanswered(f"its reply is no chat completion: {printable(' '.join(str(reply).split()))[:SHOWN]}")
    text, usage = getattr(message, "content", None), getattr(reply, "usage", None)
    count = lambda name: number if isinstance(number := getattr(usage, name, 0), int) else 0
    whole = getattr(choice, "finish_reason", None) != "length"
    return Answer(
        text if isinstance(text, str) else "", whole, count("prompt_tokens"), count("completion_tokens"), retries
    )


def key_for(base_url: str, environment: Any) -> str:
    """The key to send to an address, empty for none; OpenAI's own goes to OpenAI alone.

    >>> key_for("http://localhost:8000/v1", {"OPENAI_API_KEY": "a"}), key_for("https://x/v1", {"JUDGE_API_KEY": "b"})
    ('', 'b')
    """
    if environment.get("JUDGE_API_KEY"):
        return environment["JUDGE_API_KEY"]
    return environment.get("OPENAI_API_KEY", "") if urlsplit(base_url).hostname == "api.openai.com" else ""
