"""Questions and drafts as prompt tokens."""

import re
from collections.abc import Sequence

import numpy as np

from igrpo_jax.config import PromptConfig
from igrpo_jax.types import Tokenizer


class Prompter:
    """Renders both stages' prompts through the tokenizer's chat template (or plainly, where it has none)."""

    def __init__(self, tokenizer: Tokenizer, config: PromptConfig):
        self._tokenizer = tokenizer
        self._config = config
        # all_special_tokens leaves out special tokens that were only added, like Llama 3's <|start_header_id|>.
        added = getattr(tokenizer, "added_tokens_decoder", {}).values()
        specials = {*tokenizer.all_special_tokens, *(str(token) for token in added if token.special)} - {""}
        self._specials = sorted(specials, key=len, reverse=True)

    def question(self, question: str) -> list[int]:
        """Stage one's prompt tokens."""
        return self._chat(_fill(self._config.question, question=question))

    def refinement(self, question: str, draft: Sequence[int], *, limit: int) -> list[int]:
        """Stage two's prompt tokens: the question, whole, then the draft between its markers.

        A draft of more than `max_draft_length` tokens keeps its tail, where the answer is, and is marked as cut; it is
        cut further should the prompt still exceed `limit` tokens (text that is cut and re-tokenized can grow).
        """
        room = self._config.max_draft_length
        while True:
            tail = list(draft[-room:]) if room else []
            text = self._harmless(tail)
            if tail and len(tail) < len(draft):
                text = self._config.cut_mark + text
            prompt = self._chat(_fill(self._config.refine, question=question, draft=text))
            if len(prompt) <= limit or not tail:
                return prompt
            room = max(len(tail) - (len(prompt) - limit), 0)

    def text(self, tokens: Sequence[int]) -> str:
        """A completion as text, special tokens left out."""
        return self._tokenizer.decode(tokens, skip_special_tokens=True)

    def _harmless(self, tokens: Sequence[int]) -> str:
        """A draft as text that cannot open or close a chat turn when it is tokenized again.

        Repeated, for taking one special token out can put another together.
        """
        text, before = self.text(tokens), None
        while text != before:
            before = text
            for special in self._specials:
                text = text.replace(special, "")
        return text.strip()

    def _chat(self, message: str) -> list[int]:
        system = [{"role": "system", "content": self._config.system}] if self._config.system else []
        if getattr(self._tokenizer, "chat_template", None):
            text = self._tokenizer.apply_chat_template(
                [*system, {"role": "user", "content": message}], tokenize=False, add_generation_prompt=True
            )
            return self._tokenizer.encode(text, add_special_tokens=False)
        text = "\n\n".join([*(m["content"] for m in system), message])
        return self._tokenizer.encode(text, add_special_tokens=True)


TEMPLATE = 128
"""Tokens that stage two's template adds, for planning without a tokenizer; real ones are counted."""


def refinement_limit(prompter: Prompter, tokenizer: Tokenizer, config: PromptConfig, longest_prompt: int) -> int:
    """L of stage two: the longest stage-one prompt, the draft's room, and what template and cut mark add."""
    overhead = len(prompter.refinement("", [], limit=0)) - len(prompter.question(""))
    mark = len(tokenizer.encode(config.cut_mark, add_special_tokens=False))
    return longest_prompt + max(overhead, 0) + config.max_draft_length + mark + 8


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
