"""Tokenizers: of model directories, and one of bytes for models that have none."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from models.formats.hf_config import read_json
from models.formats.storage import write_json

BYTE_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
"""Chat template of the byte tokenizer."""


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keeps `transformers` from remarking, when first imported inside, that PyTorch is not installed."""
    name = "TRANSFORMERS_NO_ADVISORY_WARNINGS"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def load_tokenizer(directory: Path) -> Any:
    """The `transformers` tokenizer of a model directory; runs no code from it and asks no hub.

    Raises:
      ValueError: the directory has no usable tokenizer.
    """
    with quiet_transformers():
        from transformers import AutoTokenizer

        try:
            return AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        # Whatever is wrong with the files surfaces here, as any kind of exception.
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"{directory} has no usable tokenizer ({reason}); put the model's tokenizer.json and "
                "tokenizer_config.json there"
            ) from None


def save_tokenizer(tokenizer: Any, directory: Path) -> None:
    """Writes tokenizer.json and tokenizer_config.json so that transformers 4 and 5 load them."""
    tokenizer.save_pretrained(directory, save_jinja_files=False)
    path = directory / "tokenizer_config.json"
    config = read_json(path)
    if config.get("tokenizer_class") == "TokenizersBackend":
        # The name of the same class in transformers 4; transformers 5 knows both.
        write_json(path, config | {"tokenizer_class": "PreTrainedTokenizerFast"})


def stop_ids(directory: Path | None, tokenizer: Any) -> list[int]:
    """The token ids that end a completion, each once, in this order: of generation_config.json, of config.json, the
    tokenizer's own, and what ends a turn in its chat template.

    Args:
      directory: a model directory, or None for a model that has none.
      tokenizer: its `eos_token_id` counts, and its `chat_template`.

    Raises:
      ValueError: there is none, or one of the files is broken.
    """
    found: list[int] = []
    for name in ("generation_config.json", "config.json"):
        if directory is not None and (directory / name).exists():
            ids = read_json(directory / name).get("eos_token_id")
            for token in ids if isinstance(ids, list) else [] if ids is None else [ids]:
                if isinstance(token, bool) or not isinstance(token, int) or token < 0:
                    raise ValueError(f"{directory / name}: eos_token_id = {ids!r} names no token; correct it")
                found.append(token)
    if tokenizer.eos_token_id is not None:
        found.append(tokenizer.eos_token_id)
    end = turn_end(tokenizer)
    if end is not None:
        found.append(end)
    if not found:
        raise ValueError(f"{directory} names no end-of-text token; set eos_token_id in its generation_config.json")
    return list(dict.fromkeys(found))


def check_ids(tokenizer: Any, stops: list[int], size: int, source: str) -> None:
    """Raises unless an embedding of `size` rows has all tokens: JAX would take its last row for those beyond it.

    Args:
      tokenizer: every token of it counts, for any may come up in a text.
      stops: ids that end a completion.
      size: the model's vocabulary.
      source: names the model in errors.
    """
    beyond = {token: text for text, token in tokenizer.get_vocab().items() if token >= size}
    beyond |= {token: "a stop id" for token in stops if token >= size and token not in beyond}
    if beyond:
        token = min(beyond)
        more = f" and {len(beyond) - 1} more" if len(beyond) > 1 else ""
        raise ValueError(
            f"{source}: token {token} ({beyond[token]}){more} is not in the embedding of {size} rows; give the model "
            "the tokenizer and eos_token_id that it was trained with, or resize it in transformers with "
            "model.resize_token_embeddings(len(tokenizer)) and save it"
        )


def turn_end(tokenizer: Any) -> int | None:
    """The token with which the chat template ends what an assistant says, like `<|im_end|>`; None if it is text.

    The config files of base models often name another one, the end of a document.
    """
    said = "\ue000"
    conversation = [{"role": "user", "content": "question"}, {"role": "assistant", "content": said}]
    try:
        text = tokenizer.apply_chat_template(conversation, tokenize=False)
    # There is no template, or one that fails here, as any kind of exception: whoever makes prompts says so.
    except Exception:
        return None
    _, _, behind = text.rpartition(said)
    tokens = tokenizer.encode(behind.lstrip(), add_special_tokens=False) if said in text else []
    added = tokenizer.added_tokens_decoder.get(tokens[0]) if tokens else None
    return None if added is None or str(added).isalnum() else tokens[0]


def byte_tokenizer() -> Any:
    """A tokenizer whose ids 0 to 255 are bytes, followed by <bos> 256, <eos> 257 and <pad> 258."""
    with quiet_transformers():
        from transformers import PreTrainedTokenizerFast
    from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE

    # The alphabet stands for printable Latin-1 bytes by themselves, for the others by later letters in order.
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    own = {ord(letter): letter for letter in letters if ord(letter) < 256}
    others = iter(letter for letter in letters if ord(letter) >= 256)
    vocabulary = {own.get(byte) or next(others): byte for byte in range(256)}
    tokenizer = Tokenizer(BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in ("<bos>", "<eos>", "<pad>")])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        chat_template=BYTE_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
