"""Weights from and to Hugging Face model directories, tensor by tensor: no second full copy in host memory.

One table says, for every parameter, the stored tensor's name and which of our named axes its rows and columns are; all
reshapes and transposes of both directions follow from it and from the axis names that each parameter carries.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from models.config import DecoderConfig, Remat
from models.decoder import Decoder
from models.formats.hf_config import GENERATION, read_json, to_hf
from models.formats.storage import DTYPES, Tensor, open_tensors, read_index, whole_directory, write_json, write_tensors

Axes = tuple[tuple[str, ...], ...]

BASE = "model."
LAYER = "model.layers.{}."
NAMES: dict[str, tuple[str, Axes]] = {
    "embed": ("model.embed_tokens.weight", (("vocab",), ("embed",))),
    "norm": ("model.norm.weight", (("embed",),)),
    "head": ("lm_head.weight", (("vocab",), ("embed",))),
    "layers.attention_norm": (LAYER + "input_layernorm.weight", (("embed",),)),
    "layers.query": (LAYER + "self_attn.q_proj.weight", (("heads", "head_dim"), ("embed",))),
    "layers.key": (LAYER + "self_attn.k_proj.weight", (("kv_heads", "head_dim"), ("embed",))),
    "layers.value": (LAYER + "self_attn.v_proj.weight", (("kv_heads", "head_dim"), ("embed",))),
    "layers.out": (LAYER + "self_attn.o_proj.weight", (("embed",), ("heads", "head_dim"))),
    "layers.query_bias": (LAYER + "self_attn.q_proj.bias", (("heads", "head_dim"),)),
    "layers.key_bias": (LAYER + "self_attn.k_proj.bias", (("kv_heads", "head_dim"),)),
    "layers.value_bias": (LAYER + "self_attn.v_proj.bias", (("kv_heads", "head_dim"),)),
    "layers.query_norm": (LAYER + "self_attn.q_norm.weight", (("head_dim",),)),
    "layers.key_norm": (LAYER + "self_attn.k_norm.weight", (("head_dim",),)),
    "layers.mlp_norm": (LAYER + "post_attention_layernorm.weight", (("embed",),)),
    "layers.gate": (LAYER + "mlp.gate_proj.weight", (("mlp",), ("embed",))),
    "layers.up": (LAYER + "mlp.up_proj.weight", (("mlp",), ("embed",))),
    "layers.down": (LAYER + "mlp.down_proj.weight", (("embed",), ("mlp",))),
}
"""Our parameter's path: the stored tensor's name, and the axes that each of its dimensions is made of."""

EMBED, HEAD = NAMES["embed"][0], NAMES["head"][0]


class Leaf(NamedTuple):
    """One parameter: path, (abstract) array, names and sizes of its axes without `layers`, and how it is stored."""

    path: str
    array: Any
    axes: tuple[str, ...]
    sizes: dict[str, int]
    names: list[str]
    stored: Axes

    @property
    def stacked(self) -> bool:
        return len(self.axes) < len(self.array.shape)

    @property
    def stored_shape(self) -> tuple[int, ...]:
        return tuple(int(np.prod([self.sizes[a] for a in group])) for group in self.stored)


def abstract(config: DecoderConfig, *, remat: Remat = "full") -> Decoder:
    """The policy with `jax.ShapeDtypeStruct`s for weights; costs nothing."""
    return jax.eval_shape(lambda: Decoder(config, nnx.Rngs(0), remat=remat))


def leaves(policy: Decoder) -> Iterator[Leaf]:
    """The parameters of a (possibly abstract) policy in the order of `jax.tree.leaves`, with their stored names."""
    flat = jax.tree_util.tree_leaves_with_path(policy, is_leaf=lambda x: isinstance(x, nnx.Param))
    for path, param in flat:
        array, key = jax.tree.leaves(param)[0], ".".join(part.name for part in path)
        name, stored = NAMES[key]
        sizes = dict(zip(param.axes, array.shape, strict=True))
        count = sizes.pop("layers", None)
        names = [name] if count is None else [name.format(i) for i in range(count)]
        yield Leaf(key, array, tuple(sizes), sizes, names, stored)


def load_weights(
    directory: Path,
    config: DecoderConfig,
    *,
    shardings: Callable[[Decoder], Any] | None = None,
    remat: Remat = "full",
) -> Decoder:
    """The policy with the weights of a model directory as float32, each device reading only its own slices.

    Args:
      directory: holds `model.safetensors`, or several files and their index; float32, bfloat16 or float16.
      config: the architecture, see `models.formats.hf_config.from_hf`.
      shardings: from the abstract policy to a tree of shardings of its shape; None places all on the default device.
      remat: see `Decoder`.

    Raises:
      ValueError: a tensor is missing, extra, misshapen or not finite, or a file is missing or corrupt; names it. So
        is an unembedding that differs from the embedding although config.json ties them.
    """
    policy = abstract(config, remat=remat)
    tensors = _named(open_tensors(directory), policy)
    _check(directory, policy, {name: tensor.shape for name, tensor in tensors.items()})
    if config.tied and HEAD in tensors:
        _check_tied(tensors[HEAD], tensors[EMBED])
    here = jax.sharding.SingleDeviceSharding(jnp.zeros(()).devices().pop())
    places = jax.tree.map(lambda _: here, policy) if shardings is None else shardings(policy)
    arrays = [_load(leaf, tensors, place) for leaf, place in zip(leaves(policy), jax.tree.leaves(places), strict=True)]
    return jax.tree.unflatten(jax.tree.structure(policy), arrays)


def _named(tensors: Mapping[str, Tensor], policy: Decoder) -> dict[str, Tensor]:
    """The stored tensors under the names of the policy's; as in transformers the prefix `model.` may be absent or there
    once more, and of an embedding and an unembedding that are one, either may be stored.

    Raises:
      ValueError: two tensors have the same name so.
    """
    expected = {HEAD} | {name for leaf in leaves(policy) for name in leaf.names}
    named: dict[str, Tensor] = {}
    for stored, tensor in tensors.items():
        shorter, longer = stored.removeprefix(BASE), BASE + stored
        name = shorter if shorter in expected else longer if longer in expected else stored
        if name in named:
            other = named[name]
            raise ValueError(f"{tensor.file}: tensor {stored} is there as {other.name} too; remove one of them")
        named[name] = tensor
    if policy.config.tied and HEAD in named and EMBED not in named:
        named[EMBED] = named.pop(HEAD)
    return named


def _check_tied(head: Tensor, embed: Tensor) -> None:
    """Raises unless the tensors are equal: which of two is meant, only who made the model knows."""
    rows = embed.shape[0]
    some = max(1, (1 << 24) // embed.shape[1])

    def same(start: int) -> bool:
        part = slice(start, min(start + some, rows))
        one, other = (np.asarray(tensor[part], np.float32) for tensor in (head, embed))
        return np.array_equal(one, other, equal_nan=True)  # a NaN is found when it is read

    if head.shape != embed.shape or not all(map(same, range(0, rows, some))):
        raise ValueError(
            f"{head.file}: tensor {head.name} differs from {embed.name} although config.json has tie_word_embeddings = "
            "true; set that to false to use both (as transformers 5 does), or remove the tensor (transformers 4 "
            "ignores it)"
        )


def _check(directory: Path, policy: Decoder, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raises unless the directory holds exactly the policy's tensors."""
    expected = {name: leaf.stored_shape for leaf in leaves(policy) for name in leaf.names}
    for name, shape in expected.items():
        if name not in shapes:
            file = read_index(directory).get(name)
            place = f" from {file}, where the index says it is" if file else ""
            raise ValueError(
                f"{directory}: tensor {name} {shape} is missing{place}; config.json and weights do not match"
            )
        if shapes[name] != shape:
            raise ValueError(
                f"{directory}: tensor {name} has shape {shapes[name]}, config.json asks for {shape}; they do not match"
            )
    for name, shape in shapes.items():
        if name not in expected and not _redundant(name, policy.config):
            raise ValueError(
                f"{directory}: tensor {name} {shape} is not part of a {policy.config.family} model with this "
                "config.json; config.json and weights do not match"
            )


def _redundant(name: str, config: DecoderConfig) -> bool:
    """Whether other tools store this tensor beside the parameters although it follows from them or the config."""
    return name.endswith("rotary_emb.inv_freq") or (config.tied and name == HEAD)


def _load(leaf: Leaf, tensors: Mapping[str, Tensor], place: jax.sharding.Sharding) -> jax.Array:
    """One parameter, read into its shards."""
    # Devices that hold the same part share one read.
    read: dict[tuple, np.ndarray] = {}

    def shard(index: tuple[slice, ...] | None) -> np.ndarray:
        assert index is not None
        spans = [part.indices(size)[:2] for part, size in zip(index, leaf.array.shape, strict=True)]
        if tuple(spans) not in read:
            read[tuple(spans)] = _read(leaf, tensors, spans)
        return read[tuple(spans)]

    array = jax.make_array_from_callback(leaf.array.shape, place, shard)
    # Otherwise the next parameter is read while this one's host buffers are still being sent.
    return jax.block_until_ready(array)


def _read(leaf: Leaf, tensors: Mapping[str, Tensor], spans: Sequence[tuple[int, int]]) -> np.ndarray:
    """The part of a parameter that `spans` (start and stop of each of its axes) names, as float32.

    Raises:
      ValueError: a number in it is not finite.
    """
    part = np.empty([stop - start for start, stop in spans], np.float32)
    rows, layers = (part, range(*spans[0])) if leaf.stacked else (part[None], range(1))
    for row, layer in zip(rows, layers, strict=True):
        tensor = tensors[leaf.names[layer]]
        row[...] = _read_tensor(leaf, tensor, spans[1:] if leaf.stacked else spans)
        if not _finite(row):
            raise ValueError(
                f"{tensor.file}: tensor {tensor.name} holds numbers that are NaN or infinite; download the model "
                "again, or use the checkpoint before it broke"
            )
    return part


def _finite(values: np.ndarray) -> bool:
    """Whether no number is NaN or infinite. A sum is finite only if all are, and costs a fraction of a look at each."""
    with np.errstate(all="ignore"):
        return bool(np.isfinite(values.sum()) or np.isfinite(values).all())


def _read_tensor(leaf: Leaf, tensor: Tensor, spans: Sequence[tuple[int, int]]) -> np.ndarray:
    """The same part of one stored tensor, its axes in our order."""
    span = dict(zip(leaf.axes, spans, strict=True))
    # Of a dimension made of several axes whole blocks of the first are read, and the others cut afterwards.
    blocks = [int(np.prod([leaf.sizes[a] for a in group[1:]])) for group in leaf.stored]
    block = tensor[
        tuple(
            slice(span[group[0]][0] * size, span[group[0]][1] * size)
            for group, size in zip(leaf.stored, blocks, strict=True)
        )
    ]
    shape = [span[a][1] - span[a][0] if a == group[0] else leaf.sizes[a] for group in leaf.stored for a in group]
    cut = [slice(None) if a == group[0] else slice(*span[a]) for group in leaf.stored for a in group]
    order = [a for group in leaf.stored for a in group]
    return block.reshape(shape)[tuple(cut)].transpose([order.index(a) for a in leaf.axes])


def export(
    policy: Decoder,
    directory: Path,
    *,
    tokenizer: Any,
    source: Path | None = None,
    dtype: str = "float32",
    file_bytes: int = 5_000_000_000,
) -> None:
    """Writes a model directory that `transformers` loads; it appears whole or not at all.

    In a run of several processes every process must call this; the first one writes.

    Args:
      policy: the stacked policy, wherever its weights are.
      directory: a new directory, or one holding a model, which is replaced.
      tokenizer: saved beside the weights.
      source: the model directory that the policy was loaded from; special token ids and generation settings are
        carried over from it. None takes the ids from the tokenizer.
      dtype: "float32", "bfloat16" or "float16"; "auto" is the source's, float32 without one.
      file_bytes: weights beyond this go into several files with an index.

    Raises:
      ValueError: the directory holds something else or cannot be written.
    """
    from models.formats.tokenizer import save_tokenizer

    found = {name: (leaf, i) for leaf in leaves(policy) for i, name in enumerate(leaf.names)}
    shapes = {name: leaf.stored_shape for name, (leaf, _) in found.items()}
    read = lambda name: _fetch(*found[name])
    if jax.process_index() != 0:
        for name in shapes:
            read(name)
        return
    ids, generation = _settings(tokenizer, source)
    dtype = source_dtype(source) if dtype == "auto" else dtype
    with whole_directory(directory, replace=True) as partial:
        write_tensors(partial, shapes, read, dtype=dtype, file_bytes=file_bytes)
        write_json(partial / "config.json", to_hf(policy.config, dtype=dtype, token_ids=ids))
        write_json(partial / "generation_config.json", generation)
        save_tokenizer(tokenizer, partial)


def _settings(tokenizer: Any, source: Path | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Special token ids for config.json, and generation_config.json."""
    ids = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
    if source is None:
        return ids, ids
    known = read_json(source / "config.json")
    generation = source / "generation_config.json"
    carried = {name: known[name] for name in ids if name in known}
    # Without the file transformers takes these settings from config.json, where older versions wrote them.
    older = {name: known[name] for name in sorted(GENERATION) if name in known}
    return carried, read_json(generation) if generation.exists() else ids | older


def source_dtype(source: Path | None) -> str:
    """The dtype that a model directory's config.json names, or else its tensors have; float32 for one of no use here.

    transformers 5 calls the field `dtype` and prefers it to the older `torch_dtype`.
    """
    if source is None:
        return "float32"
    known = read_json(source / "config.json")
    named = known.get("dtype") or known.get("torch_dtype") or next(iter(open_tensors(source).values())).dtype
    return named if isinstance(named, str) and named in DTYPES else "float32"


@jax.jit
def _layer(stacked, index):
    return jax.lax.dynamic_index_in_dim(stacked, index, keepdims=False)


def _fetch(leaf: Leaf, layer: int) -> np.ndarray:
    """One stored tensor of a parameter, on the host."""
    # Gathering is meant here, also inside a run that forbids unasked-for transfers.
    with jax.transfer_guard("allow"):
        array = _layer(leaf.array, layer) if leaf.stacked else leaf.array
        if not array.is_fully_addressable:
            from jax.experimental import multihost_utils

            array = multihost_utils.process_allgather(array, tiled=True)
        host = np.asarray(jax.device_get(array))
    order = [a for group in leaf.stored for a in group]
    return host.transpose([leaf.axes.index(a) for a in order]).reshape(leaf.stored_shape)
