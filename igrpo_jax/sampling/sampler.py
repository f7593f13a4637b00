"""The sampler draws completions of any number of prompts, a fixed number of rows at a time.

Rows whose completions have ended are given to prompts that wait, and to prompts that follow from finished ones. So
memory depends on the `Pool` alone. A completion is the same whatever slot, lane or step it is drawn in, for randomness
is keyed by identity. All programs are compiled by the first call.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np

from igrpo_jax.config import SamplingConfig
from igrpo_jax.protocols import Layout, Model
from igrpo_jax.sampling.draw import Truncation
from igrpo_jax.sampling.flight import Call, Flight
from igrpo_jax.sampling.programs import Pool, Programs, padded_stops
from igrpo_jax.types import Follow, PyTree, Request, Samples, Usage, stack


class Sampler:
    """Draws completions of requests, and of the requests that follow from them.

    Randomness is keyed by (seed, step, stage, problem id, sample, token).
    """

    def __init__(
        self,
        model: Model,
        layout: Layout,
        *,
        pool: Pool,
        seed: int,
        stop_ids: Sequence[int],
        decode: Callable[[Sequence[int]], str],
        pause: Callable[[], None] = lambda: None,
        followers: int = 1,
    ):
        """Wraps the model's functions.

        Args:
          model: see `igrpo_jax.protocols.Model`.
          layout: see `igrpo_jax.protocols.Layout`.
          pool: how much is sampled at once.
          seed: the run's seed.
          stop_ids: token ids that end a completion, at most `MAX_STOP_IDS`.
          decode: text of token ids, used to find stop strings.
          pause: called between programs; raises where the run is to leave.
          followers: threads in which `follow` is called. With several each finished request has a call of its own, so
            that one which waits in it, for a judge say, keeps no other waiting. Not in a run of several processes:
            there what follows must come in one order everywhere.

        Raises:
          ValueError: too many stop ids, or none.
        """
        self._model, self._layout, self._pool, self._text = model, layout, pool, decode
        self._seed = layout.everywhere(jax.random.key(seed))
        self._pause, self._followers = pause, followers
        self._stops = padded_stops(stop_ids)
        self._programs: Programs | None = None

    def __call__(
        self,
        view: PyTree,
        requests: Sequence[Request],
        *,
        step: int,
        settings: SamplingConfig,
        follow: Follow,
    ) -> Usage:
        """Samples all requests, and all that follow from them.

        Args:
          view: the policy as `Model.sampling_view` lays it out.
          requests: prompts, and how many completions of each.
          step: training step, part of the random key.
          settings: temperature, truncation, length and stop strings; no value of them compiles anything.
          follow: gets finished requests, in another thread while others are decoded, in up to `followers` at once, and
            returns those that follow from them. What it raises is raised here.

        Returns:
          How the time was spent; the samples themselves go to `follow`.

        Raises:
          ValueError: a prompt is empty or longer than the pool allows, or completions may get longer than that.
        """
        if settings.max_completion_length > self._pool.completions[-1]:
            raise ValueError(
                f"completions of up to {settings.max_completion_length} tokens, but the sampler was made for "
                f"{self._pool.completions[-1]}"
            )
        if self._programs is None:
            self._programs = Programs(self._model, self._layout, self._pool, view, self._seed)
        truncation = Truncation(
            np.float32(settings.temperature), np.int32(settings.top_k), np.float32(settings.top_p),
            np.float32(settings.min_p),
        )  # fmt: skip
        truncation, stops, on_step = self._layout.everywhere((truncation, self._stops, np.int32(step)))
        threads = ThreadPoolExecutor(self._followers, thread_name_prefix="follow")
        call = Call(
            programs=self._programs, layout=self._layout, pool=self._pool, view=view, seed=self._seed, step=on_step,
            truncation=truncation, stops=stops, stop_ids=self._stops, settings=settings, text=self._text,
            follow=lambda finished: [threads.submit(follow, some) for some in self._apart(finished)], pause=self._pause,
        )  # fmt: skip
        try:
            return Flight(call).run(requests)
        finally:
            # Not awaited: after an error, or where the run is to leave, a reward may never return.
            threads.shutdown(wait=False, cancel_futures=True)

    def _apart(self, finished: list[tuple[Request, Samples]]) -> list[list[tuple[Request, Samples]]]:
        """Finished requests by the calls of `follow` that they go to."""
        return [finished] if self._followers == 1 else [[one] for one in finished]

    def complete(
        self,
        view: PyTree,
        prompts: Sequence[Sequence[int]],
        *,
        ids: Sequence[int],
        step: int,
        stage: int,
        num_samples: int,
        settings: SamplingConfig,
    ) -> Samples:
        """Draws `num_samples` completions of every prompt and returns them when all are there.

        Args:
          view: as for a call, like `step` and `settings`.
          prompts: P token lists.
          ids: for each prompt, the problem's identity, which keys the randomness.
          step: training step.
          stage: stage number, part of the random key.
          num_samples: G.
          settings: temperature, truncation, length and stop strings.

        Returns:
          Samples [P, G].

        Raises:
          ValueError: as for a call; or there are not as many ids as prompts.
        """
        if len(ids) != len(prompts):
            raise ValueError(f"{len(ids)} ids for {len(prompts)} prompts; give one each, they key the randomness")
        done: dict[int, Samples] = {}

        def follow(finished: list[tuple[Request, Samples]]) -> list[Request]:
            done.update({request.index: samples for request, samples in finished})
            return []

        pairs = zip(ids, prompts, strict=True)
        requests = [Request(p, i, stage, list(prompt), num_samples) for p, (i, prompt) in enumerate(pairs)]
        self(view, requests, step=step, settings=settings, follow=follow)
        return stack([done[p] for p in range(len(prompts))])
