"""Shows how a policy answers questions: drafts, the chosen one, refinements."""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from igrpo_jax.config import Config
from igrpo_jax.edges.checks import check
from igrpo_jax.edges.preemption import Stop
from igrpo_jax.edges.printable import say
from igrpo_jax.edges.user_code import path_of
from jobs.arguments import Launch
from jobs.devices import devices
from jobs.parts import assemble, newest_policy

STANDARD_INPUT = "-"


def run(launch: Launch, config: Config, workdir: Path, stop: Stop) -> None:
    """Answers questions with the newest checkpoint of the workdir, or the initial model; prints, and writes nothing."""
    config = dataclasses.replace(config, eval=dataclasses.replace(config.eval, refine=True))
    file = launch.questions if launch.questions != STANDARD_INPUT else ""
    given = [*launch.question, *(in_file(file, config) if file else [])]
    listens = launch.questions == STANDARD_INPUT or not given
    with devices(launch, config, stop) as layout, ExitStack() as held:
        if listens and layout.processes.count > 1:
            raise ValueError("several processes do not share standard input; give --question or --questions FILE")
        alone = listens and sys.stdin.isatty()
        if listens and not alone:
            given += lines_of(sys.stdin.read())
        if not given and not alone:
            raise ValueError("there is no question; give --question TEXT, --questions FILE, or lines on standard input")
        answer = answering(config, layout, workdir, problems_of(given), held)
        if given:
            answer(problems_of(given))
        if alone:
            say("a question a line; the end of the input (Ctrl-D) ends this")
        for line in sys.stdin if alone else ():
            try:
                answer(problems_of(lines_of(line)))
            except ValueError as error:
                say(f"error: {error}")


def in_file(name: str, config: Config) -> list[Any]:
    """Questions of a file, a text with one a line; or problems of a table or of another source, with their answers."""
    from igrpo_jax.data import load_source
    from igrpo_jax.data.presets import PRESETS
    from igrpo_jax.data.tables import type_of

    path = path_of(name)
    if path.is_file() and type_of(path) is None:
        try:
            return lines_of(path.read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is no text in UTF-8 ({error}); give one question a line") from error
    if not path.is_file() and ":" not in name and name.partition("?")[0] not in PRESETS:
        raise ValueError(f"--questions {name}: no such file, and no source of problems; - is standard input")
    spec = f"file:{name.replace('%', '%25').replace('?', '%3F')}" if path.is_file() else name
    source = load_source(spec, question_column=config.data.question_column, answer_column=config.data.answer_column)
    if getattr(source, "endless", False) and not config.eval.problems:
        raise ValueError(f"{name} is endless; say how many of its problems to ask with --eval.problems")
    return [source[i] for i in range(min(config.eval.problems or len(source), len(source)))]


def lines_of(text: str) -> list[str]:
    """A question a line; empty lines are none."""
    return [line.strip() for line in text.split("\n") if line.strip()]


def problems_of(questions: Sequence[Any]) -> list[Any]:
    """Questions as problems, numbered; what is a problem already keeps what it knows."""
    from igrpo_jax.types import Problem

    return [
        question._replace(id=number) if isinstance(question, Problem) else Problem(number, question, {"answer": None})
        for number, question in enumerate(questions)
    ]


def answering(
    config: Config, layout: Any, workdir: Path, first: Sequence[Any], held: ExitStack
) -> Callable[[Sequence[Any]], None]:
    """A function that answers problems and prints it all.

    Args:
      config: the experiment.
      layout: the devices.
      workdir: where a checkpoint may be.
      first: the problems that are answered first, for which the programs are sized; none where each comes by itself.
      held: ends the graders when it is left.
    """
    from igrpo_jax.data.problems import Data, no_batches
    from igrpo_jax.evaluate import refine
    from igrpo_jax.prompts import Prompter
    from igrpo_jax.train import evaluation_draw
    from models.formats.load import find

    found = find(config.model.source)
    prompter = Prompter(found.tokenizer, config.prompt, stop_ids=found.stop_ids)
    longest = max(checked(first, prompter, config), default=config.prompt.max_prompt_length)
    graded, reward = rewarding(config, first, held)
    data = Data(no_batches, {"questions": list(first) or problems_of(["?"])}, longest, longest, {})
    parts = assemble(config, layout, found, reward, data)
    params, _, what = newest_policy(config, layout, found, parts.learner, workdir)
    draw = evaluation_draw(parts, parts.learner.view(params))
    if layout.processes.first:
        say(f"answers of {what}")

    def answer(problems: Sequence[Any]) -> None:
        checked(problems, prompter, config)
        evaluation = refine(problems, draw=draw, settings=config.eval, seed=config.seed)
        if layout.processes.first:
            show(evaluation.records(prompter.text), config, graded)

    return answer


def checked(problems: Sequence[Any], prompter: Any, config: Config) -> list[int]:
    """Tokens of each question's prompt.

    Raises:
      ValueError: one is too long, or is no text.
    """
    longest, lengths = config.prompt.max_prompt_length, []
    for number, problem in enumerate(problems, 1):
        if isinstance(problem.question, str) and any("\ud800" <= letter <= "\udfff" for letter in problem.question):
            raise ValueError(f"question {number} holds halves of characters; write it in UTF-8")
        lengths += prompter.lengths([problem.question])
        if not 0 < lengths[-1] <= longest:
            raise ValueError(f"question {number} has {lengths[-1]} tokens; allow more with --prompt.max-prompt-length")
    return lengths


def rewarding(config: Config, problems: Sequence[Any], held: ExitStack) -> tuple[bool, Any]:
    """Whether answers are graded, and what does it: the config's rewards, where every problem has a gold answer.

    Where one has none, answers are read out alone, and the judge is asked where it selects.
    """
    from igrpo_jax.evaluate.ungraded import Judged, ungraded
    from igrpo_jax.rewards import load_rewards

    if problems and all(problem.columns.get("answer") is not None for problem in problems):
        check(config)
        return True, held.enter_context(load_rewards(config.reward, config.judge))
    if config.eval.select == "best":
        raise ValueError("eval.select is best, but not every question has a gold answer; select majority")
    functions = ("judge",) if config.eval.select == "judge" else ("accuracy",)
    used = dataclasses.replace(config.reward, functions=functions, weights=())
    check(dataclasses.replace(config, reward=used))
    if functions != ("judge",):
        return False, ungraded
    return False, Judged(held.enter_context(load_rewards(used, config.judge)))


def show(records: Any, config: Config, graded: bool) -> None:
    """Prints all of the problems, in their order."""
    from rich.console import Console

    from igrpo_jax.evaluate.shown import record_shown

    console = Console(highlight=False)
    for record in records:
        for part in record_shown(record, select=config.eval.select, graded=graded):
            console.print(part)
