"""A conversation as prompt tokens in which only the chat template opens and closes turns, never the text inside.

A tokenizer reads `<|im_end|>` as a control token wherever it stands. Texts of the data and of the model are kept out of
that: wherever one of them would become a control token, it is encoded as what it is, text.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from datetime import date
from itertools import takewhile
from threading import Thread
from typing import Any, NamedTuple

from igrpo_jax.protocols import Tokenizer
from igrpo_jax.types import Message, Question

_SLOT = re.compile("\ue000(\\d+)\ue001")
_BRACKETED = re.compile(r"[<\[{]+[^\s<>\[\]{}]+[>\]}]+")
"""`<|user|>`, `[/INST]`, `<<SYS>>`."""

_TODAY = re.compile(r"""strftime_now\(\s*(['"])(.*?)\1\s*\)""")
TEMPLATE_SECONDS = 30.0  # for the first rendering of a template, which is a program of strangers
_PROBES = (("system", "user", "assistant", "user"), ("user", "assistant", "user"), ("user",))


def asked(question: Question) -> str:
    """The text of a question, of a conversation what the user says last."""
    return question if isinstance(question, str) else question[-1]["content"]


def slot(number: int) -> str:
    """What stands in a message for a text that is put in later; a character of private use at either end."""
    return f"\ue000{number}\ue001"


def probe(*roles: str) -> list[Message]:
    """A message of each role, with slots for content."""
    return [{"role": role, "content": slot(number)} for number, role in enumerate(roles)]


class Outline(NamedTuple):
    """Messages rendered with their slots.

    Attributes:
      pieces: text of the template, the number of a slot, text of the template, and so on.
      controls: the control tokens that the template alone puts there, in order.
    """

    pieces: list[str]
    controls: list[int]


class Chat:
    """Encodes conversations through a tokenizer's chat template, or as paragraphs where it has none."""

    def __init__(self, tokenizer: Tokenizer, *, values: Mapping[str, Any], day: str):
        """Looks at the template; `unread` are the names of values that it does not look at.

        Args:
          tokenizer: a tokenizer of `transformers`, or what is like one.
          values: what the template gets besides the messages.
          day: year-month-day; what the template is told that it is today.
        """
        self._tokenizer = tokenizer
        self._template = getattr(tokenizer, "chat_template", None)
        self._values = dict(values)
        if isinstance(self._template, str) and "strftime_now" in self._template:
            self._values["chat_template"] = dated(self._template, date.fromisoformat(day))
        self._begin = [] if self._template else beginning(tokenizer)
        self._controls = control_tokens(tokenizer)
        self._control_ids = frozenset(self._controls.values())
        self.unread = [name for name in values if not re.search(rf"\b{re.escape(name)}\b", str(self._template))]
        self._outlines: dict[tuple[tuple[str, str], ...], Outline] = {}
        backed = getattr(tokenizer, "backend_tokenizer", None) is not None
        self._literal = Literal(tokenizer, self._controls) if backed and self._controls else None
        self._markers = markers(self.outline, self._controls) if self._template else None

    def encode(self, messages: Sequence[Message], texts: Sequence[str]) -> list[int]:
        """The tokens of messages whose slots hold texts, up to where the answer begins.

        For ordinary texts these are the tokens of the rendered template. Where texts would add a control token to the
        template's own, their characters are encoded as characters; a tokenizer that cannot do that loses the token's
        name. Markers of turns that are mere text (`[/INST]`) are broken by a space.

        Raises:
          ValueError: the template refuses these messages, or leaves one out.
        """
        texts = [text if self._markers is None else self._markers.sub(broken, text) for text in texts]
        outline = self.outline(messages)
        tokens = self._encode(self._render(_filled(messages, texts)))
        if self._literal is not None and self._controls_in(tokens) != outline.controls:
            tokens = self._begin + self._literal.encode(outline.pieces, texts)
        if self._controls_in(tokens) != outline.controls:
            tokens = self._encode(self._render(_filled(messages, [self._without_controls(text) for text in texts])))
        return tokens

    def outline(self, messages: Sequence[Message]) -> Outline:
        """Messages with slots, rendered.

        Raises:
          ValueError: the template refuses such messages, leaves one out, or does not end.
        """
        key = tuple((message["role"], message["content"]) for message in messages)
        if key not in self._outlines:
            pieces = _SLOT.split(_in_time(lambda: self._render(messages)))
            for role, content in key:
                if not set(_SLOT.findall(content)) <= set(pieces[1::2]):
                    raise ValueError(f"the model's chat template leaves out what the {role} says")
            self._outlines[key] = Outline(pieces, self._controls_in(self._encode("x".join(pieces[::2]))))
        return self._outlines[key]

    def _render(self, messages: Sequence[Message]) -> str:
        if not self._template:
            return "\n\n".join(message["content"] for message in messages)
        try:
            return self._tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=True, **self._values
            )
        # A template is a program of the model's makers: it fails as any kind of exception.
        except Exception as error:
            words = " ".join(str(error).split()) or type(error).__name__
            roles = ", ".join(message["role"] for message in messages)
            raise ValueError(f"the model's chat template fails at messages of {roles}: {words}") from error

    def _encode(self, text: str) -> list[int]:
        return self._begin + self._tokenizer.encode(text, add_special_tokens=False)

    def _controls_in(self, tokens: Sequence[int]) -> list[int]:
        return [token for token in tokens if token in self._control_ids]

    def _without_controls(self, text: str) -> str:
        """Repeated, for taking one token's name out can put another together."""
        names, before = sorted(self._controls, key=len, reverse=True), None
        while text != before:
            before = text
            for name in names:
                text = text.replace(name, "")
        return text


def _in_time(render: Callable[[], str]) -> str:
    """What rendering gives; a ValueError if it takes too long, when it goes on in its thread until the run ends."""
    rendered: Future[str] = Future()

    def run() -> None:
        try:
            rendered.set_result(render())
        except BaseException as error:
            rendered.set_exception(error)

    Thread(target=run, daemon=True, name="chat-template").start()
    try:
        return rendered.result(TEMPLATE_SECONDS)
    except TimeoutError:
        raise ValueError(f"the model's chat template does not end within {TEMPLATE_SECONDS:g} s") from None


class Literal:
    """A tokenizer's model and rules, but control tokens go by other names: the usual ones are text to it."""

    def __init__(self, tokenizer: Any, controls: Mapping[str, int]):
        """Copies a fast tokenizer of `transformers`; its vocabulary is shared."""
        from tokenizers import AddedToken, Tokenizer

        backend = tokenizer.backend_tokenizer
        self._names = {control: f"\ue002{token}\ue003" for control, token in controls.items()}
        self._controls = alternatives(controls)
        self._tokenizer = Tokenizer(backend.model)
        if backend.normalizer is not None:
            self._tokenizer.normalizer = backend.normalizer
        if backend.pre_tokenizer is not None:
            self._tokenizer.pre_tokenizer = backend.pre_tokenizer
        added = {
            token: AddedToken(
                self._names.get(str(known), str(known)),
                single_word=known.single_word,
                lstrip=known.lstrip,
                rstrip=known.rstrip,
                normalized=known.normalized,
            )
            for token, known in sorted(tokenizer.added_tokens_decoder.items())
        }
        self._tokenizer.add_tokens(list(added.values()))
        self._tokens = {self._tokenizer.token_to_id(str(known)): token for token, known in added.items()}

    def encode(self, pieces: Sequence[str], texts: Sequence[str]) -> list[int]:
        """The tokens of an outline's pieces, with texts in its slots."""
        parts = [
            texts[int(piece)].replace("\ue002", "\ufffd") if i % 2 else self._controls.sub(self._renamed, piece)
            for i, piece in enumerate(pieces)
        ]
        tokens = self._tokenizer.encode("".join(parts), add_special_tokens=False).ids
        return [self._tokens.get(token, token) for token in tokens]

    def _renamed(self, match: re.Match) -> str:
        return self._names[match[0]]


def control_tokens(tokenizer: Tokenizer) -> dict[str, int]:
    """Names and ids of the tokens that say more than text does.

    They are the special tokens (`all_special_tokens` leaves out those that were only added, like Llama 3's
    `<|start_header_id|>`), and what else was added with marks around it, like R1-Distill's `<｜User｜>`. Letters, words
    and blanks that were added to a vocabulary are text (DeepSeek's `ü`).
    """
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return {str(known): token for token, known in added.items() if str(known) and (known.special or _marked(known))}


def _marked(known: Any) -> bool:
    name = str(known).replace("▁", " ")
    return len(name) > 1 and not all(character.isalnum() or character.isspace() for character in name)


def dated(template: str, day: date) -> str:
    """A chat template that writes the given day, not the one on which it is rendered.

    Raises:
      ValueError: it takes the form of its dates from elsewhere.
    """
    fixed = _TODAY.sub(lambda match: repr(day.strftime(match[2])), template)
    if "strftime_now(" in fixed:
        raise ValueError(
            "the model's chat template writes today's date in a form that is not in the template; write a fixed one "
            "into chat_template in its tokenizer_config.json, or a resumed run is another one"
        )
    return fixed


def alternatives(names: Mapping[str, int]) -> re.Pattern:
    """Finds names, the longest that fits."""
    return re.compile("|".join(map(re.escape, sorted(names, key=len, reverse=True))) or "(?!)")


def beginning(tokenizer: Tokenizer) -> list[int]:
    """The tokens that a tokenizer puts in front of a text of its own accord; what it puts behind it is no prompt's."""
    text = tokenizer.encode("a", add_special_tokens=False)
    whole = tokenizer.encode("a", add_special_tokens=True)
    starts = [i for i in range(len(whole)) if whole[i : i + len(text)] == text]
    return whole[: starts[0]] if starts else []


def markers(outline: Callable[[Sequence[Message]], Outline], controls: Mapping[str, int]) -> re.Pattern | None:
    """What opens a turn in a template without any control token, as in Tulu's `<|user|>` and `<|assistant|>`.

    It is what the template puts between messages. Words beside a control token or brackets (`assistant` of ChatML) open
    nothing on their own. Words alone (`User:`) do so only where the template has them, at the beginning of a line or
    not.
    """
    for roles in _PROBES:
        try:
            pieces = outline(probe(*roles)).pieces
        except ValueError:
            continue
        break
    else:
        return None
    between = pieces[::2]
    if "assistant" in roles:
        # The template may open an answer with more than the turn (`<think>`), or an earlier one; not with both.
        before = pieces[1::2].index(str(roles.index("assistant")))
        pairs = zip(between[before], between[-1], strict=False)
        both = "".join(a for a, b in takewhile(lambda pair: pair[0] == pair[1], pairs))
        between[before] = between[-1] = both if both.strip() else between[-1]
    found: dict[str, None] = {}
    for number, text in enumerate(between):
        parts = alternatives(controls).split(text)
        found |= dict.fromkeys(re.escape(mark) for part in parts for mark in _BRACKETED.findall(part))
        if len(parts) == 1 and not _BRACKETED.search(text):
            found |= dict.fromkeys(_lines(text, first=number == 0))
    return re.compile("|".join(found), re.MULTILINE) if found else None


def _lines(text: str, *, first: bool) -> list[str]:
    """Patterns of a text's lines; `first` where the text is the first of all."""
    patterns = []
    for match in re.finditer(r"[^\n]+", text):
        words = match[0].strip()
        if any(character.isalnum() for character in words):
            begins = text[: match.start()].endswith("\n") or (first and match.start() == 0)
            whole = text[match.end() :].startswith("\n") and words.replace(" ", "").isalnum()
            before, behind = r"^[ \t]*" if begins else r"(?<!\w)", r"[ \t]*$" if whole else ""
            patterns.append(before + re.escape(words) + behind)
    return patterns


def broken(match: re.Match) -> str:
    """A marker with a space behind its first character."""
    blanks = len(match[0]) - len(match[0].lstrip())
    return f"{match[0][: blanks + 1]} {match[0][blanks + 1 :]}"


def _filled(messages: Sequence[Message], texts: Sequence[str]) -> list[Message]:
    """Messages with texts in their slots, in one pass: a text may hold what looks like a slot."""
    return [
        {"role": message["role"], "content": _SLOT.sub(lambda match: texts[int(match[1])], message["content"])}
        for message in messages
    ]
