"""The training loop; everything it needs is handed to it.

A step, as `train_step` takes it:

1. `run.batches(step)` gives P problems, and such as may take the place of some, a pure function of seed and step.
2. `learner.view` lays the weights out for decoding.
3. `rollout` samples N drafts of each problem, grades them, puts the best one into the prompt, samples G refinements and
   grades these; problems do not wait for each other.
4. The view is freed. `update` cuts the refinements into micro-batches, adds up the gradients of `igrpo_loss`, and makes
   an AdamW step.
5. `train` logs metrics and samples, saves a checkpoint every so often, and evaluates after it.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from igrpo_jax import replay
from igrpo_jax.config import Config, SamplingConfig
from igrpo_jax.drive import Reward, with_overlong
from igrpo_jax.edges.preemption import Preempted, Stop
from igrpo_jax.evaluate import Evaluation, drawing, evaluate
from igrpo_jax.evaluate.evaluate import evaluation_line, metrics_of
from igrpo_jax.evaluate.matching import Draw
from igrpo_jax.learning.learner import Learner, TrainState
from igrpo_jax.learning.penalty import with_penalty
from igrpo_jax.learning.spending import Spending
from igrpo_jax.learning.updates import nothing, update
from igrpo_jax.prompts import Prompter
from igrpo_jax.protocols import Layout, Sample
from igrpo_jax.records.alarms import Alarms, in_a_row, too_many
from igrpo_jax.records.checkpoint import Checkpoints
from igrpo_jax.records.machine.clock import Clock
from igrpo_jax.records.machine.compiles import counting_compiles
from igrpo_jax.records.machine.memory import peak_gb
from igrpo_jax.records.metrics import rollout_metrics
from igrpo_jax.records.runlog import RunLog
from igrpo_jax.records.samples import sample_record
from igrpo_jax.replay import Past
from igrpo_jax.rollout import Rollout, rollout
from igrpo_jax.sampling.sampler import Sampler
from igrpo_jax.types import DRAFT, Divide, Follow, Problem, PyTree, Request, Shapes, Usage

WARM_STEPS = 2
"""Steps after which nothing should compile any more."""


class Run(NamedTuple):
    """The parts of a run, put together by `launch.py`.

    Attributes:
      evaluator: the sampler of evaluations, the same one where its pool serves them.
      batches: step -> its problems, and behind them those that may take the place of some; a pure function.
      evals: name -> problems of each evaluation set.
      divide: lets every process do a part of the work on hosts.
      refinement_limit: tokens that a prompt with a draft may have in training, whatever is evaluated.
    """

    config: Config
    layout: Layout
    learner: Learner
    sampler: Sampler
    evaluator: Sampler
    prompter: Prompter
    reward: Reward
    shapes: Shapes
    batches: Callable[[int], list[Problem]]
    evals: Mapping[str, Sequence[Problem]]
    divide: Divide
    refinement_limit: int


def train(
    run: Run, initial_params: Callable[[], PyTree], *, workdir: Path, log: RunLog, checkpoints: Checkpoints, stop: Stop
) -> PyTree:
    """Trains for `config.train.steps`, or up to its limits, from the newest checkpoint if there is one.

    Args:
      run: see `Run`.
      initial_params: loads the initial policy's float32 master weights; called only where they are needed.
      workdir: where everything is written.
      log: open records of the run.
      checkpoints: open checkpoints of the run.
      stop: is told what is completed, and asked at safe points whether to leave.

    Returns:
      The final master weights.

    Raises:
      Preempted: the run is to leave; what was completed is saved.
      ValueError: it could not be saved, or the run ends for another reason that a person must mend.
    """
    with stop.keeping(checkpoints):
        try:
            params = _train(run, initial_params, workdir, log, checkpoints, stop)
            checkpoints.finish()
            return params
        except Preempted:
            stop.save_last()
            raise
        finally:
            checkpoints.wait()


def _train(
    run: Run, initial_params: Callable[[], PyTree], workdir: Path, log: RunLog, checkpoints: Checkpoints, stop: Stop
) -> PyTree:
    config = run.config
    reference = initial_params() if config.algorithm.beta > 0 else None
    completed = checkpoints.latest() or 0
    if completed:
        state = checkpoints.restore(completed, run.learner.placed)
        log.say(f"resumed {workdir} after step {completed}")
    else:
        state = run.learner.init(initial_params())
    pasts = earlier_drafts(config, checkpoints, completed)
    stop.hold(completed, state, saved=True)
    alarms, left_out, spending = Alarms(), 0, Spending(config, log.kept)
    run = run._replace(config=spending.expecting(completed, run.layout.agree))
    if evaluation_due(run, completed) and not run.layout.agree(log.evaluated(completed)):
        log_evaluations(run, state.params, completed, log)

    step = completed
    while step < run.config.train.steps:
        stop.check()
        with counting_compiles() as compiles:
            state, metrics, experience = train_step(run, state, step, reference, past=pasts[step], pause=stop.check)
        metrics["compile/count"] = float(compiles.count)
        if compiles.count and step >= completed + WARM_STEPS:
            log.say(f"warning: step {step + 1} compiled {compiles.count} programs; shapes should be fixed by now")
        done = step + 1
        left_out = in_a_row(left_out, metrics)
        for warning in alarms.after(metrics):
            log.say(f"warning: {warning}")
        log.metrics(done, metrics)
        spending.add(metrics)
        run = run._replace(config=spending.expecting(done, run.layout.agree))
        log.steps = run.config.train.steps
        rows = config.train.sample_rows
        some = experience.problems[: rows if rows >= 0 else None]
        log.samples(done, [sample_record(q, p, experience.stages, run.prompter.text) for p, q in enumerate(some)])
        log.advance(done, metrics)
        # The state before this step may be saved yet, by a thread beside this loop.
        pasts[done] = experience.past or {}
        pasts.pop(step - 1, None)
        del experience
        if left_out > config.train.max_skipped:
            raise ValueError(too_many(done, left_out, metrics))
        stop.hold(done, state)
        if done == run.config.train.steps or done % config.train.save_every == 0:
            stop.save()
        # After the checkpoint: if the run is killed in here, only this is to be made again.
        if evaluation_due(run, done):
            log_evaluations(run, state.params, done, log)
        step = done
    return state.params


def earlier_drafts(config: Config, checkpoints: Checkpoints, completed: int) -> dict[int, Past]:
    """The drafts to replay, by step; what is put there for later steps is saved with the state after them."""
    pasts = {completed: replay.decoded(checkpoints.read_beside(completed, replay.NAME) or b"{}")}
    if config.algorithm.replay:
        checkpoints.beside = lambda step: {replay.NAME: replay.encoded(pasts[step])}
    return pasts


def train_step(
    run: Run,
    state: TrainState,
    step: int,
    reference: PyTree | None,
    *,
    past: Past | None = None,
    pause: Callable[[], None] = nothing,
) -> tuple[TrainState, dict[str, float], Rollout]:
    """One rollout and `num_iterations` updates on it; the old state is consumed, but not before `pause` may raise."""
    config, clock = run.config, Clock()
    algorithm, penalty = config.algorithm, {}
    started = time.perf_counter()
    with jax.transfer_guard("disallow"):
        view = run.learner.view(state.params)
        experience = rollout(
            run.batches(step),
            sample=sampling(run.sampler, view, config.sampling),
            reward=clock.grading(
                with_overlong(run.reward, limit=run.shapes.completion, buffer=algorithm.overlong_buffer)
            ),
            prompter=run.prompter,
            config=algorithm,
            seed=config.seed,
            step=step,
            refinement_limit=run.refinement_limit,
            divide=run.divide,
            count=config.train.problems_per_step,
            past=past,
        )
        del view
        metrics = rollout_metrics(experience)
        with clock.span("update"):
            if reference is not None and algorithm.kl_in == "reward":
                experience, penalty = with_penalty(
                    run.learner, state.params, reference, experience, config=config, prompt_length=run.shapes.of
                )
            state, updated = update(
                run.learner,
                state,
                experience,
                config=config,
                prompt_length=run.shapes.of,
                step=step,
                reference=reference,
                pause=pause,
            )
    usage = experience.usage
    seconds = clock.seconds | {"wait": usage.waited}
    for stage, value in usage.seconds.items():
        name = "draft" if stage == DRAFT else "refine"
        seconds[name] = seconds.get(name, 0.0) + value
    metrics |= updated | penalty | {f"time/{name}_s": value for name, value in seconds.items()}
    metrics["step_time"] = time.perf_counter() - started
    metrics["tokens_per_s/sample"] = metrics["num_tokens"] / sum(usage.seconds.values())
    if not metrics["update/skipped"]:
        metrics["tokens_per_s/train"] = metrics["train/tokens"] / clock.seconds["update"]
    metrics["memory/peak_gb"] = peak_gb()
    metrics["devices"] = float(jax.device_count())
    return state, metrics, experience


def sampling(sampler: Sampler, view: PyTree, settings: SamplingConfig) -> Sample:
    """A sampler bound to a view and to settings."""

    def sample(requests: Sequence[Request], *, step: int, follow: Follow) -> Usage:
        return sampler(view, requests, step=step, settings=settings, follow=follow)

    return sample


def evaluation_due(run: Run, done: int) -> bool:
    """Whether there is an evaluation after `done` steps."""
    settings = run.config.train
    regular = settings.eval_every > 0 and done % settings.eval_every == 0
    return bool(run.evals) and (regular or done in (0, settings.steps))


def log_evaluations(run: Run, params: PyTree, step: int, log: RunLog) -> None:
    """Evaluates every set and records it; the metrics come last, as the sign that all of it is there."""
    metrics: dict[str, float] = {}
    for name, evaluation in run_evaluations(run, params):
        line = evaluation_line(name, evaluation, run.config)
        log.evaluation(step, line, evaluation.records(run.prompter.text))
        metrics |= metrics_of(line)
    log.metrics(step, metrics)


def run_evaluations(run: Run, params: PyTree) -> Iterator[tuple[str, Evaluation]]:
    """Every evaluation set in each mode, by name, one after the other."""
    config = run.config
    view = run.learner.view(params)
    draw = evaluation_draw(run, view)
    for name, problems in run.evals.items():
        evaluations = evaluate(problems, draw=draw, settings=config.eval, seed=config.seed)
        yield from ((name, evaluation) for evaluation in evaluations)


def evaluation_draw(run: Run, view: PyTree) -> Draw:
    """Samples as evaluations do, and grades, with the policy laid out for decoding."""
    config = run.config
    settings = dataclasses.replace(
        config.sampling, temperature=config.eval.temperature, top_p=config.eval.top_p,
        max_completion_length=config.eval.max_completion_length or config.sampling.max_completion_length,
    )  # fmt: skip
    return drawing(
        sample=sampling(run.evaluator, view, settings), reward=run.reward, prompter=run.prompter,
        refinement_limit=run.shapes.refinement, divide=run.divide,
    )  # fmt: skip
