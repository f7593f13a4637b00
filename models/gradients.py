"""Matmuls and lookups whose gradients are written out, because those that XLA makes of them are slow or imprecise."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from models.axes import constrain, here


@jax.custom_vjp
def lookup(table: Float[Array, "V D"], tokens: Int[Array | np.ndarray, "P *rows"]) -> Float[Array, "P *rows D"]:
    """Rows of the table. Their gradients are added up in float32, for of a frequent token there are hundreds."""
    return constrain(table, "vocab", None)[tokens]


def _lookup_forward(table, tokens):
    return lookup(table, tokens), (table, tokens)


def _lookup_backward(kept, change):
    table, tokens = kept
    place = here()
    # Each group of rows adds up its own, on its own devices; only the sums are sent.
    ways = 1 if place is None else place.ways("batch", tokens.shape[0])
    apart = lambda x: x.reshape(ways, -1, *x.shape[1:])
    add = lambda at, change: jnp.zeros(table.shape, jnp.float32).at[at].add(change.astype(jnp.float32))
    sums = constrain(jax.vmap(add)(apart(tokens), apart(change)), "batch", "vocab", None)
    return sums.sum(axis=0).astype(table.dtype), None


lookup.defvjp(_lookup_forward, _lookup_backward)


@jax.custom_vjp
def head_logits(
    hidden: Float[Array, "*rows D"], weights: Float[Array, "V D"], wide: Float[Array, "V D"]
) -> Float[Array, "*rows V"]:
    """float32 logits by the weights, whose gradient goes to `wide`, float32 and otherwise without any part in this.

    Left alone, the logits' float32 gradient makes the backward pass's matmuls float32 ones, and a loop over rows adds
    up the weights' gradients in the weights' dtype.
    """
    return jnp.einsum("...D,VD->...V", hidden, weights, preferred_element_type=jnp.float32)


def _head_forward(hidden, weights, wide):
    return head_logits(hidden, weights, wide), (hidden, weights)


def _head_backward(kept, change):
    hidden, weights = kept
    change = change.astype(hidden.dtype)
    back = jnp.einsum("...V,VD->...D", change, weights)
    return back, None, jnp.einsum("...V,...D->VD", change, hidden, preferred_element_type=jnp.float32)


head_logits.defvjp(_head_forward, _head_backward)


@jax.custom_vjp
def matmul(x: Float[Array, "*rows X"], w: Float[Array, "X Y"]) -> Float[Array, "*rows Y"]:
    """x w, whose gradients are matmuls over operands that exist in memory.

    Left alone, XLA on CPU fuses what is left and right of a matmul in the backward pass, activation functions for one,
    into a transposing copy, which takes longer than the matmul.
    """
    return x @ w


def _matmul_forward(x, w):
    return x @ w, (x, w)


def _matmul_backward(kept, change):
    x, w = kept
    x, change = jax.lax.optimization_barrier((x, change))
    flat = lambda a: a.reshape(-1, a.shape[-1])
    return change @ w.T, flat(x).T @ flat(change)


matmul.defvjp(_matmul_forward, _matmul_backward)
