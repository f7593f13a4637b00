"""The reward `judge`, and a judge's scores of texts for whoever else wants them."""

import math
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any

from igrpo_jax.config import JudgeConfig
from igrpo_jax.edges.checks import check_judge
from igrpo_jax.edges.printable import printable
from igrpo_jax.edges.user_code import path_of
from igrpo_jax.rewards.judge.cache import Cache, key_of
from igrpo_jax.rewards.judge.endpoint import Answer, Endpoint, Hopeless, Unanswered
from igrpo_jax.rewards.judge.form import asked_of_judge, fields_of, read_score
from igrpo_jax.rewards.verdict import Verdict

COUNTS = ("requests", "cached", "retries", "failed", "unparsed", "prompt_tokens", "completion_tokens")
"""What is counted of each completion; a reply that serves several was asked for with the first, cached with others."""


def _on_stderr(text: str) -> None:
    print(text, file=sys.stderr)


def load_judge(config: JudgeConfig, say: Callable[[str], None] = _on_stderr) -> "Judge":
    """The judge that a config describes; it asks nothing before it is called.

    Args:
      config: see there.
      say: gets a line when something is odd for the first time.

    Raises:
      ValueError: the config describes none, or the client is not installed.
    """
    check_judge(config)
    cache = Cache(path_of(config.cache), say) if config.cache else None
    return Judge(config, Endpoint(config), cache, say)


class Judge:
    """A reward function with TRL's signature, which any number of threads may call at once; it only waits.

    Attributes:
      parameters: names of the columns that it takes, and of those that it cannot do without.
    """

    def __init__(
        self, config: JudgeConfig, endpoint: Endpoint, cache: Cache | None, say: Callable[[str], None]
    ) -> None:
        """Puts the parts together; `load_judge` makes them."""
        self._config, self._endpoint, self._cache, self._say = config, endpoint, cache, say
        self._failures, self._given_up, self._warned = 0, "", set()
        wanted = {"prompts", "completions"} | ({"answer"} & fields_of(config.prompt))
        self.parameters = wanted, wanted

    def __call__(self, prompts: Sequence[Any], completions: Sequence[str], **columns: Sequence[Any]) -> list[Verdict]:
        """The score of each completion as a share of the highest, with its reason, and what was counted.

        A completion that the judge does not grade has the number NaN and the reason `judge_failed` or `judge_unparsed`.

        Raises:
          ValueError: no request will ever be answered, or so many completions in a row were not graded.
        """
        answers = columns.get("answer", [None] * len(completions))
        rows = zip(prompts, completions, answers, strict=True)
        requests = [self._request(question, text, gold) for question, text, gold in rows]
        replies = {request: self._reply(request) for request in dict.fromkeys(requests)}
        verdicts, seen = [], set()
        for request in requests:
            reply = replies[request]
            verdict = reply if isinstance(reply, Verdict) else self._verdict(reply, request)
            replies[request] = verdict
            verdicts.append(_again(verdict) if request in seen else verdict)
            seen.add(request)
        return verdicts

    def close(self) -> None:
        """Gives up what is on its way."""
        self._endpoint.close()
        if self._cache:
            self._cache.close()

    def _request(self, question: Any, completion: str, answer: Any) -> str:
        gold = "" if answer is None else str(answer)
        texts = {"question": str(question), "completion": completion, "answer": gold}
        texts["best_score"] = f"{self._config.best_score}"
        return asked_of_judge(self._config.prompt, texts)

    def _key(self, request: str) -> str:
        return key_of([self._config.base_url, self._config.model, self._config.options, request])

    def _reply(self, request: str) -> Verdict | Future[Answer]:
        """The verdict, if this was answered before, else the answer to come."""
        if self._given_up:
            raise ValueError(self._given_up)
        known = self._cache.get(self._key(request)) if self._cache else None
        score = None if known is None else read_score(known, self._config.best_score)
        if score is not None:
            return self._judged(score, {"cached": 1})
        future = self._endpoint.ask(request)
        future.add_done_callback(self._heed)
        return future

    def _verdict(self, reply: Future[Answer], request: str) -> Verdict:
        """Waits for an answer, and reads it."""
        try:
            answer = reply.result()
        except Unanswered as error:
            return self._ungraded("failed", str(error), {})
        except CancelledError:
            raise ValueError(self._given_up or "the judge was closed while it graded") from None
        if self._given_up:
            raise ValueError(self._given_up)
        counts = {name: getattr(answer, name) for name in ("prompt_tokens", "completion_tokens", "retries")}
        score = self._read(answer)
        if score is None:
            text = " ".join(answer.text.split()) or "nothing"
            cut = "it was cut off; raise max_tokens in judge.options"
            what = f"it ended in {text[-80:]!r}" if answer.whole else cut
            return self._ungraded("unparsed", f"its reply has no line `Score: ...` at its end: {what}", counts)
        if self._cache:
            self._cache.put(self._key(request), answer.text)
        return self._judged(score, counts | {"requests": 1})

    def _read(self, answer: Answer) -> float | None:
        return read_score(answer.text, self._config.best_score) if answer.whole else None

    def _judged(self, score: float, counts: dict[str, int]) -> Verdict:
        value = score / self._config.best_score
        return Verdict(value, "judged", f"{score:g}", counts=dict.fromkeys(COUNTS, 0) | counts)

    def _ungraded(self, what: str, why: str, counts: dict[str, int]) -> Verdict:
        if what not in self._warned:
            self._warned.add(what)
            self._say(
                f"warning: the judge has not graded a completion: {printable(why)}; such completions are neither "
                f"rewarded nor punished by it, and counted as judge/{what}"
            )
        counts = dict.fromkeys(COUNTS, 0) | counts | {"requests": 1, what: 1}
        return Verdict(math.nan, f"judge_{what}", message=why, counts=counts)

    def _heed(self, reply: Future[Answer]) -> None:
        """Ends the run where the judge is of no use; called as replies come in, in the endpoint's thread."""
        if reply.cancelled() or self._given_up:
            return
        error = reply.exception()
        if isinstance(error, Hopeless):
            self._give_up(str(error))
            return
        graded = error is None and self._read(reply.result()) is not None
        self._failures = 0 if graded else self._failures + 1
        if self._failures >= self._config.max_failures:
            last = str(error) if error else "its replies do not end in a line `Score: ...`"
            self._give_up(
                f"the judge {self._config.model} at {self._config.base_url} has not graded {self._failures} "
                f"completions in a row (the last: {last}); see that it runs, and judge.base_url and judge.prompt, or "
                "allow more with --judge.max-failures"
            )

    def _give_up(self, why: str) -> None:
        self._given_up = why
        self._endpoint.cancel()


def _again(verdict: Verdict) -> Verdict:
    """A verdict for a completion whose like was graded in the same call: it cost nothing."""
    counts = dict.fromkeys(COUNTS, 0) | {"cached": 1}
    counts |= {name: verdict.counts[name] for name in ("failed", "unparsed")}
    return Verdict(float(verdict), verdict.reason, verdict.parsed, verdict.message, counts=counts)
