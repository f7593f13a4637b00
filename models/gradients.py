"""Matmuls and lookups with gradients written by hand, where those that JAX derives are slow or imprecise."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from models.axes import constrain, here


@jax.custom_vjp
def lookup(table: Float[Array, "V D"], tokens: Int[Array | np.ndarray, "P *rows"]) -> Float[Array, "P *rows D"]:
    """Rows of an embedding table, whose gradient is added up in float32.

    A frequent token has hundreds of gradients in a batch; added up in bfloat16, the later ones would be rounded away.
    """
    return constrain(table, "vocab", None)[tokens]


def _lookup_forward(table, tokens):
    return lookup(table, tokens), (table, tokens)


def _lookup_backward(kept, change):
    table, tokens = kept
    place = here()
    # The rows of each device are added up on that device; only the sums are sent.
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
    """float32 logits `hidden weightsᵀ`, with a float32 gradient of the weights that goes to `wide`.

    `wide` has the weights in float32 and is not computed with. The gradient that JAX derives would do the backward
    pass's matmuls in float32, because logits are, and a loop over rows would add up the weights' gradients in the
    weights' own dtype.
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
    """x w, with a backward pass in which the operands of both matmuls are kept as arrays of their own.

    Without that XLA on CPU fuses the operations around a matmul of the backward pass, such as an activation function's
    derivative, into a transposing copy of its operand, which takes longer than the matmul.
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
