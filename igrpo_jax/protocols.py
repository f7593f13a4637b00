"""What the algorithm expects of a policy, of the devices, of a sampler and of a tokenizer: it imports none of them."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Array, Float, Int

from igrpo_jax.types import AnyArray, Follow, Packed, PyTree, Request, Usage


@runtime_checkable
class Model(Protocol):
    """The functions through which the algorithm sees a policy; `models.decoder` is one such module.

    `prefix` and `cache` are pytrees that only the model understands. `policy` is a pytree of weights.
    """

    def prefill(
        self, policy: PyTree, tokens: Int[AnyArray, "P L"], lengths: Int[AnyArray, " P"]
    ) -> tuple[Float[Array, "P D"], PyTree]:
        """Hidden state of each prompt's last real token, and the prefix that completions attend to."""
        ...

    def extend(
        self,
        policy: PyTree,
        tokens: Int[AnyArray, "P G T"],
        prefix: PyTree,
        cache: PyTree | None = None,
        used: Int[Array, "P G"] | None = None,
    ) -> tuple[Float[Array, "P G T D"], PyTree | None]:
        """Hidden states of tokens that continue the prefix; with a cache, the last `used` cached tokens of each row.

        What a row's cache holds besides has no effect, so a row starts anew with `used = 0`. A row that is not to
        start anew has a token in every call.
        """
        ...

    def forward(
        self, policy: PyTree, tokens: Int[Array, "P C"], prompt_lengths: Int[AnyArray, " P"], packed: Packed
    ) -> Float[Array, "P C D"]:
        """Hidden states of prompts and their completions: what `prefill` and `extend` would give, in one pass."""
        ...

    def unembed(self, policy: PyTree, hidden: Float[Array, "*rows D"]) -> Float[Array, "*rows V"]:
        """float32 logits."""
        ...

    def spread(self, policy: PyTree, ways: int) -> PyTree:
        """What `unembed` needs, with a copy for each of `ways` groups of rows in front, for `jax.vmap` over it."""
        ...

    def new_prefix(self, policy: PyTree, size: int, capacity: int) -> PyTree:
        """A prefix of `size` empty prompts with room for `capacity` tokens; every leaf has the prompts first."""
        ...

    def new_cache(self, policy: PyTree, prefix: PyTree, num_samples: int, capacity: int) -> PyTree:
        """An empty cache: `num_samples` completions a prompt, `capacity` tokens."""
        ...

    def resize(self, tree: PyTree, capacity: int) -> PyTree:
        """The same prefix or cache with room for `capacity` tokens a row."""
        ...

    def sampling_view(self, policy: PyTree, dtype: Any) -> PyTree:
        """The policy laid out for decoding: cast to `dtype`, and however the model decodes fastest."""
        ...


@runtime_checkable
class Layout(Protocol):
    """Where arrays live; `sharding.Layout` is one. Rows are problems; parameters follow the axis-rule table."""

    num_row_shards: int

    def rows(self, tree: PyTree, axis: int = 0) -> PyTree:
        """Puts host arrays on the devices, `axis` split over the devices that hold different rows."""
        ...

    def everywhere(self, tree: PyTree) -> PyTree:
        """Puts host values on the devices, a copy on each."""
        ...

    def fetch(self, tree: PyTree) -> PyTree:
        """Arrays on the devices as whole host arrays."""
        ...

    def agree(self, value: int) -> int:
        """The same value in all processes of a run, for decisions that hang on time."""
        ...

    def train_shardings(self, tree: PyTree) -> PyTree:
        """The shardings of a tree shaped like the policy, for updating."""
        ...

    def decode_shardings(self, tree: PyTree) -> PyTree:
        """The shardings of a tree shaped like the sampling view, for decoding."""
        ...


@runtime_checkable
class Sample(Protocol):
    """Draws completions; `train.sampling` binds `igrpo_jax.sampling.sampler.Sampler` to it, tests script their own.

    `follow` is called with finished requests, in any order and grouping, until nothing is left to do; it may be called
    again before an earlier call has returned.
    """

    def __call__(self, requests: Sequence[Request], *, step: int, follow: Follow) -> Usage: ...


@runtime_checkable
class Tokenizer(Protocol):
    """The part of a `transformers` tokenizer that is used here."""

    all_special_tokens: Sequence[str]

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str: ...

    def apply_chat_template(self, conversation: list[Any], **kwargs: Any) -> Any: ...
