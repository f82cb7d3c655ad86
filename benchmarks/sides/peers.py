"""How others train: PyTorch, JAX, scikit-learn. Each function loads its library and gives a call that trains an epoch."""

import math
from typing import Any

import numpy as np

from benchmarks.sides.work import BETAS, DECAY, EPSILON, RATE, RETURN_WEIGHT, Epoch, Work


def pytorch(given: Work, fused: bool, compiled: bool = False) -> Epoch:
    """The fastest plain loop: tensors made beforehand, one gather an epoch, batches as views, members by baddbmm."""
    import torch
    from torch.nn import functional as F  # noqa: N812  its own docs' name

    torch.set_num_threads(given.threads)
    shape, members = given.shape, given.members
    alone = members == 1
    arrays = [W[0].T.copy() if alone else W for W in given.W]
    weights = [torch.from_numpy(array.copy()).requires_grad_() for array in arrays]
    biases = [torch.zeros(o if alone else (members, 1, o), requires_grad=True) for o in shape.sizes[1:]]
    rows = [torch.from_numpy(array[0] if alone else array) for array in (given.X, given.up, given.target)]
    optimiser = torch.optim.AdamW(
        weights + biases,
        lr=RATE,
        betas=BETAS,
        eps=EPSILON,
        weight_decay=DECAY,
        fused=fused,
        foreach=not fused,
    )
    layers = list(zip(weights, biases, strict=True))

    def linear(x: Any, W: Any, b: Any) -> Any:
        return F.linear(x, W, b) if alone else torch.baddbmm(b, x, W)

    def loss_of(x: Any, up: Any, target: Any) -> Any:
        for W, b in layers[:-1]:
            x = F.relu(linear(x, W, b))
        outputs = linear(x, *layers[-1])
        loss = F.binary_cross_entropy_with_logits(outputs[..., 0], up)
        loss = loss + RETURN_WEIGHT * F.huber_loss(outputs[..., 1], target)
        return loss if alone else members * loss  # each member's gradient is that of its own mean

    if compiled:
        loss_of = torch.compile(loss_of, fullgraph=True)

    def epoch() -> float:
        order = torch.from_numpy(given.order())
        if alone:
            shuffled = [part[order[0]] for part in rows]
        else:
            shuffled = [torch.stack([p[o] for p, o in zip(part, order, strict=True)]) for part in rows]
        losses = []
        for batch in zip(*(part.split(shape.batch, dim=0 if alone else 1) for part in shuffled), strict=True):
            optimiser.zero_grad(set_to_none=True)
            loss = loss_of(*batch)
            loss.backward()
            optimiser.step()
            losses.append(loss.detach())
        return float(torch.stack(losses).mean()) / members

    return epoch


def jax(given: Work, scanned: bool) -> Epoch:
    """AdamW by hand over one flat buffer, jitted with donated state; scanned, one call is a whole epoch."""
    import jax
    import jax.numpy as jnp
    from jax.flatten_util import ravel_pytree

    shape, members = given.shape, given.members
    trees = [[(W[k], np.zeros(W.shape[2], np.float32)) for W in given.W] for k in range(members)]
    unravel = ravel_pytree(trees[0])[1]
    params = jnp.stack([ravel_pytree(tree)[0] for tree in trees])
    rows = [jnp.asarray(array) for array in (given.X, given.up, given.target)]

    def loss_of(params: Any, x: Any, up: Any, target: Any) -> Any:
        *hidden, (W_last, b_last) = unravel(params)
        for W, b in hidden:
            x = jax.nn.relu(x @ W + b)
        outputs = x @ W_last + b_last
        logit, error = outputs[:, 0], jnp.abs(outputs[:, 1] - target)
        huber = jnp.where(error < 1, 0.5 * error * error, error - 0.5)
        return jnp.mean(jnp.logaddexp(0, logit) - up * logit) + RETURN_WEIGHT * jnp.mean(huber)

    def step(state: Any, batch: Any) -> Any:
        params, m, v, number = state
        loss, gradient = jax.value_and_grad(loss_of)(params, *batch)
        number = number + 1
        m = BETAS[0] * m + (1 - BETAS[0]) * gradient
        v = BETAS[1] * v + (1 - BETAS[1]) * gradient * gradient
        moved = (m / (1 - BETAS[0] ** number)) / (jnp.sqrt(v / (1 - BETAS[1] ** number)) + EPSILON)
        return (params * (1 - RATE * DECAY) - RATE * moved, m, v, number), loss

    state = (params, jnp.zeros_like(params), jnp.zeros_like(params), jnp.zeros(members, jnp.float32))
    if members == 1:
        state, rows = jax.tree.map(lambda part: part[0], (state, rows))
    axis = 0 if members == 1 else 1
    steps: Any = step if members == 1 else jax.vmap(step)

    def take(part: Any, order: Any) -> Any:
        return part[order[0]] if members == 1 else jax.vmap(lambda own, rows: own[rows])(part, order)

    def one(state: Any, rows: Any, number: Any) -> Any:
        start = number * shape.batch
        return steps(state, [jax.lax.dynamic_slice_in_dim(p, start, shape.batch, axis) for p in rows])

    def whole(state: Any, rows: Any, order: Any) -> Any:
        rows = [take(part, order) for part in rows]
        return jax.lax.scan(lambda state, n: one(state, rows, n), state, jnp.arange(shape.batches))

    shuffle = jax.jit(lambda rows, order: [take(part, order) for part in rows])
    call_step, call_epoch = jax.jit(one, donate_argnums=0), jax.jit(whole, donate_argnums=0)
    numbers = [np.int32(number) for number in range(shape.batches)]

    def epoch() -> float:
        nonlocal state
        order = given.order().astype(np.int32)
        if scanned:
            state, losses = call_epoch(state, rows, order)
        else:
            shuffled, losses = shuffle(rows, order), []
            for number in numbers:
                state, loss = call_step(state, shuffled, number)
                losses.append(loss)
        jax.block_until_ready(state)
        return float(np.mean(losses))

    return epoch


def scikit_learn(given: Work) -> Epoch:
    """Less work than the others': one output, cross-entropy alone, and Adam without decay."""
    from sklearn.neural_network import MLPClassifier

    classifier = MLPClassifier(
        given.shape.hidden, alpha=0, batch_size=given.shape.batch, learning_rate_init=RATE, random_state=0
    )
    X, up = given.X[0], given.up[0].astype(np.int64)

    def epoch() -> float:
        classifier.partial_fit(X, up, classes=(0, 1))  # one epoch, shuffled
        return math.nan

    return epoch
