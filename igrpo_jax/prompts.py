"""Questions and drafts as prompt tokens, and completions as text."""

import re
from collections.abc import Sequence

import numpy as np

from igrpo_jax.config import PromptConfig
from igrpo_jax.edges.chat import Chat, asked, broken, control_tokens, probe, slot
from igrpo_jax.protocols import Tokenizer
from igrpo_jax.types import Message, Question

_NAMED = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


class Prompter:
    """Renders both stages' prompts through the tokenizer's chat template (or plainly, where it has none)."""

    def __init__(self, tokenizer: Tokenizer, config: PromptConfig, *, stop_ids: Sequence[int] = ()):
        """Looks whether the template takes what the config gives it.

        Args:
          tokenizer: a tokenizer of `transformers`, or what is like one.
          config: the templates and what goes into them.
          stop_ids: tokens that end a turn of the model, besides the tokenizer's own; they are no text.

        Raises:
          ValueError: the chat template is broken, or has no place for `prompt.system`.
        """
        self._tokenizer, self._config = tokenizer, config
        self._chat = Chat(tokenizer, values=config.chat_template_kwargs, day=config.date)
        self._marks = draft_marks(config.refine)
        self._opened = False
        self._silent = frozenset(_named(tokenizer)) | frozenset(stop_ids)
        try:
            after = self._chat.outline(probe("user")).pieces[-1]
            self._opened = (config.question.partition("{question}")[2] + after).rstrip().endswith(THINK)
        except ValueError as error:
            raise ValueError(f"{error}; mend chat_template in the model's tokenizer_config.json") from error
        if config.system:
            try:
                self._chat.outline(probe("system", "user"))
            except ValueError as error:
                raise ValueError(
                    f"this model's chat template has no system role ({error}); leave prompt.system empty or put the "
                    "text into prompt.question"
                ) from error

    @property
    def warning(self) -> str | None:
        """What is odd about the config, if anything is."""
        if not self._chat.unread:
            return None
        return f"the chat template does not look at {', '.join(self._chat.unread)} of prompt.chat_template_kwargs"

    def question(self, question: Question) -> list[int]:
        """Stage one's prompt tokens. A conversation keeps its turns; its system message replaces the config's.

        Raises:
          ValueError: the chat template refuses such turns.
        """
        return self._encode(self._config.question, question)

    def refinement(self, question: Question, draft: Sequence[int], *, limit: int) -> list[int]:
        """Stage two's prompt tokens: the question, whole, then the draft between its markers.

        A line of the draft that reads like one of the markers gets a space behind its first character.

        Under `strip_think` the draft is only what `answered` leaves of it.

        A draft of more than `max_draft_length` tokens keeps its tail, where the answer is, and is marked as cut; it is
        cut further should the prompt still exceed `limit` tokens (text that is cut and re-tokenized can grow).
        """
        room = self._config.max_draft_length
        whole = self.text(draft)
        spoken = self.spoken(whole)
        if spoken != whole:
            draft = self._tokenizer.encode(spoken.strip() or self._config.cut_mark, add_special_tokens=False)
        while True:
            tail = list(draft[-room:]) if room else []
            text = self.text(tail).strip()
            if self._marks is not None:
                text = self._marks.sub(broken, text)
            if tail and len(tail) < len(draft):
                text = self._config.cut_mark + text
            prompt = self._encode(self._config.refine, question, draft=text)
            if len(prompt) <= limit or not tail:
                return prompt
            room = max(len(tail) - (len(prompt) - limit), 0)

    def lengths(self, questions: Sequence[Question]) -> list[int]:
        """Tokens of each question's stage-one prompt; 0 where the chat template refuses its turns."""
        return [self._length(question) for question in questions]

    def text(self, tokens: Sequence[int]) -> str:
        """A completion as text, without the tokens that pad it or end it.

        Other special tokens are part of it: `<think>` and `<answer>` are, in some vocabularies.
        """
        if not self._silent:
            return self._tokenizer.decode(tokens, skip_special_tokens=True)
        spoken = [token for token in tokens if token not in self._silent]
        return self._tokenizer.decode(spoken, skip_special_tokens=False)

    def spoken(self, text: str) -> str:
        """What of a completion's text goes into prompts as a draft: all of it, or under `strip_think` its answer."""
        return answered(text, opened=self._opened) if self._config.strip_think else text

    def stops(self, strings: Sequence[str]) -> list[int]:
        """The tokens that some of the stop strings are, for the sampler to stop at.

        Raises:
          ValueError: a stop string cannot occur in the text of a completion.
        """
        controls = control_tokens(self._tokenizer)
        for string in strings:
            mute = [name for name, token in controls.items() if token in self._silent and name in string]
            if string not in controls and mute:
                raise ValueError(
                    f"sampling.stop_strings has {string!r}, but {mute[0]} is a token that ends or pads completions and "
                    f"is no part of their text; give {mute[0]} alone, or leave it out"
                )
        return [controls[string] for string in strings if string in controls]

    def _length(self, question: Question) -> int:
        try:
            return len(self.question(question))
        except ValueError:
            return 0

    def _encode(self, template: str, question: Question, **texts: str) -> list[int]:
        turns: Sequence[Message] = [] if isinstance(question, str) else question[:-1]
        own = any(turn["role"] == "system" for turn in turns)
        system = [{"role": "system", "content": self._config.system}] if self._config.system and not own else []
        before = [{"role": turn["role"], "content": slot(number)} for number, turn in enumerate(turns)]
        texts = {"question": asked(question)} | texts
        slots = {name: slot(len(turns) + number) for number, name in enumerate(texts)}
        message = {"role": "user", "content": _fill(template, **slots)}
        contents = [turn["content"] for turn in turns]
        return self._chat.encode([*system, *before, message], [*contents, *texts.values()])


THINK, THOUGHT = "<think>", "</think>"
"""What begins and ends a model's thinking."""


def answered(text: str, *, opened: bool) -> str:
    """A text without thinking: what follows the last `</think>`, up to where new thinking begins.

    Thinking that never ends is not the answer: where a `<think>` has no end, what follows it is left out, and where the
    prompt has `opened` thinking and nothing ends it, all of the text.

    >>> answered("<think>2 + 2</think> It is 4.", opened=False), answered("2 + 2</think> It is 4.", opened=True)
    (' It is 4.', ' It is 4.')
    >>> answered("<think>2 + 2 is", opened=False), answered("2 + 2 is", opened=True), answered("2 + 2", opened=False)
    ('', '', '2 + 2')
    """
    _, end, answer = text.rpartition(THOUGHT)
    if not end and opened:
        return ""
    return answer.partition(THINK)[0]


def _named(tokenizer: Tokenizer) -> list[int]:
    """Ids of the tokens that have a role in every tokenizer: they begin, end, pad or replace text."""
    tokens = [getattr(tokenizer, f"{name}_token_id", None) for name in _NAMED]
    return [token for token in tokens if token is not None]


def beyond_positions(prompt: int, completion: int, max_position: int) -> str | None:
    """A warning where prompts and completions of so many tokens are more than the model was made for, else None."""
    if prompt + completion <= max_position:
        return None
    return (
        f"prompts of up to {prompt} tokens and completions of up to {completion} go beyond the model's "
        f"max_position_embeddings, {max_position}, where it knows no positions; lower prompt.max_prompt_length, "
        "prompt.max_draft_length or sampling.max_completion_length"
    )


TEMPLATE = 128
"""Tokens that stage two's template adds, for planning without a tokenizer; real ones are counted."""


def refinement_limit(prompter: Prompter, tokenizer: Tokenizer, config: PromptConfig, longest_prompt: int) -> int:
    """L of stage two: the longest stage-one prompt, the draft's room, and what template and cut mark add."""
    overhead = len(prompter.refinement("", [], limit=0)) - len(prompter.question(""))
    mark = len(tokenizer.encode(config.cut_mark, add_special_tokens=False))
    return longest_prompt + max(overhead, 0) + config.max_draft_length + mark + 8


def draft_marks(template: str) -> re.Pattern | None:
    """What opens and closes the draft in stage two's template: the lines next to it, in any case and with any blanks.

    Words alone (`Draft:`) are markers only at the beginning of a line. A mere bracket around the draft is none, for
    drafts hold many.
    """
    before, found, after = template.replace("{question}", "").partition("{draft}")
    if not found:
        return None
    patterns = []
    for lines in (before.splitlines()[::-1], after.splitlines()):
        words = next((line.split() for line in lines if line.strip()), [])
        if any(character.isalnum() for word in words for character in word):
            plain = all(word.strip(".,:;!?").isalnum() for word in words)
            patterns.append((r"^[^\S\n]*" if plain else "") + r"[^\S\n]*".join(map(re.escape, words)))
    return re.compile("|".join(patterns), re.IGNORECASE | re.MULTILINE) if patterns else None


def _fill(template: str, **values: str) -> str:
    """The template with its `{names}` replaced in one pass, so that a value may hold braces of its own."""
    return re.sub(r"\{(question|draft)\}", lambda match: values.get(match[1], match[0]), template)


def pad_prompts(prompts: Sequence[Sequence[int]], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Prompts padded on the right with 0 to int32[P, size], and their lengths int32[P].

    Raises:
      ValueError: a prompt is empty or too long.
    """
    if not prompts:
        raise ValueError("no prompts were given; give at least one")
    lengths = np.array([len(p) for p in prompts], np.int32)
    if lengths.min() < 1 or lengths.max() > size:
        bad = int(np.argmax((lengths < 1) | (lengths > size)))
        raise ValueError(
            f"prompt {bad} has {lengths[bad]} tokens; prompts need 1 to {size}: raise prompt.max_prompt_length or "
            "shorten the question"
        )
    tokens = np.zeros((len(prompts), size), np.int32)
    for row, prompt in zip(tokens, prompts, strict=True):
        row[: len(prompt)] = prompt
    return tokens, lengths
