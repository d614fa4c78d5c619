"""The main job, examples/sweep, in PyTorch and JAX.

    python sweep.py [--engine torch-bmm jax-vmap] [--models 1000] [--epochs 20] [--data digits.csv.gz]

Classifiers 64-32-10, each with its own learning rate (log-spaced from 1e-4 to 1e-1), first weights and
shuffles; Adam, batch 32. The first 1,437 images train, the other 360 validate. One JSON line an engine:
seconds of training without compilation, best and median validation accuracy. To keep shapes static both
leave out the last, smaller batch of an epoch, 29 images of 1,437, which neurarch does train on.
"""

import argparse
import json
import pathlib
import time

import numpy as np

DIGITS = pathlib.Path(__file__).parents[2] / "examples/data/digits.csv.gz"
BATCH, WIDTHS, N_TRAIN = 32, (64, 32, 10), 1437


def digits(path):
    table = np.loadtxt(path, delimiter=",", dtype=np.float32)
    images, labels = table[:, :64] / 16, table[:, 64].astype(np.int64)
    return images[:N_TRAIN], labels[:N_TRAIN], images[N_TRAIN:], labels[N_TRAIN:]


def torch_bmm(data, models, epochs):
    import torch
    from torch.nn.functional import cross_entropy

    torch.manual_seed(0)
    images, labels, validation, truth = map(torch.from_numpy, data)
    layers = []
    for before, after in zip(WIDTHS, WIDTHS[1:]):
        bound = before**-0.5
        weight = torch.empty(models, before, after).uniform_(-bound, bound)
        bias = torch.empty(models, 1, after).uniform_(-bound, bound)
        layers.append((weight.requires_grad_(), bias.requires_grad_()))
    parameters = [p for layer in layers for p in layer]
    means = [torch.zeros_like(p) for p in parameters]
    squares = [torch.zeros_like(p) for p in parameters]
    rates = torch.logspace(-4, -1, models)[:, None, None]

    def forward(x):
        hidden = torch.relu(torch.baddbmm(layers[0][1], x, layers[0][0]))
        return torch.baddbmm(layers[1][1], hidden, layers[1][0])

    start, count = time.perf_counter(), 0
    for _ in range(epochs):
        orders = torch.rand(models, len(images)).argsort(1)
        for first in range(0, len(images) - BATCH + 1, BATCH):
            count += 1
            items = orders[:, first : first + BATCH]
            logits = forward(images[items]).flatten(0, 1)
            loss = cross_entropy(logits, labels[items].flatten(), reduction="sum") / BATCH
            gradients = torch.autograd.grad(loss, parameters)
            with torch.no_grad():
                torch._foreach_lerp_(means, gradients, 0.1)
                torch._foreach_mul_(squares, 0.999)
                torch._foreach_addcmul_(squares, gradients, gradients, 0.001)
                rate, root = rates / (1 - 0.9**count), (1 - 0.999**count) ** 0.5
                for p, m, v in zip(parameters, means, squares):
                    p.sub_(rate * m / (v.sqrt().div_(root).add_(1e-8)))
    seconds = time.perf_counter() - start
    with torch.no_grad():
        logits = forward(validation.expand(models, -1, -1))
    return seconds, (logits.argmax(-1) == truth).float().mean(1).numpy()


def jax_vmap(data, models, epochs):
    import jax
    import jax.numpy as jnp

    images, labels, validation, truth = map(jnp.asarray, data)
    key = jax.random.PRNGKey(0)
    parameters = []
    for before, after in zip(WIDTHS, WIDTHS[1:]):
        key, w, b = jax.random.split(key, 3)
        bound = before**-0.5
        weight = jax.random.uniform(w, (models, before, after), minval=-bound, maxval=bound)
        parameters.append((weight, jax.random.uniform(b, (models, after), minval=-bound, maxval=bound)))

    def forward(parameters, x):
        (w0, b0), (w1, b1) = parameters
        return jax.nn.relu(x @ w0 + b0) @ w1 + b1

    def loss(parameters, x, y):
        scores = jax.nn.log_softmax(forward(parameters, x))
        return -jnp.take_along_axis(scores, y[:, None], 1).mean()

    def epoch(parameters, means, squares, count, rate, key):
        whole = len(images) // BATCH * BATCH
        orders = jax.random.permutation(key, len(images))[:whole].reshape(-1, BATCH)

        def step(state, items):
            parameters, means, squares, count = state
            count = count + 1
            gradients = jax.grad(loss)(parameters, images[items], labels[items])
            means = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, means, gradients)
            squares = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, squares, gradients)
            scale, root = rate / (1 - 0.9**count), (1 - 0.999**count) ** 0.5
            move = lambda p, m, v: p - scale * m / (jnp.sqrt(v) / root + 1e-8)
            parameters = jax.tree.map(move, parameters, means, squares)
            return (parameters, means, squares, count), None

        return jax.lax.scan(step, (parameters, means, squares, count), orders)[0]

    axes = (0, 0, 0, None)
    compiled = jax.jit(jax.vmap(epoch, in_axes=(*axes, 0, 0), out_axes=axes))
    zeros = jax.tree.map(jnp.zeros_like, parameters)
    rates = jnp.logspace(-4, -1, models)
    state = (parameters, zeros, zeros, 0.0)
    jax.block_until_ready(compiled(*state, rates, jax.random.split(key, models)))  # Compiles.
    start = time.perf_counter()
    for _ in range(epochs):
        key, split = jax.random.split(key)
        state = compiled(*state, rates, jax.random.split(split, models))
    jax.block_until_ready(state)
    seconds = time.perf_counter() - start
    logits = jax.vmap(forward, (0, None))(state[0], validation)
    return seconds, np.asarray((logits.argmax(-1) == truth).mean(1))


ENGINES = {"torch-bmm": torch_bmm, "jax-vmap": jax_vmap}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=ENGINES, nargs="*", default=list(ENGINES))
    parser.add_argument("--models", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--data", default=DIGITS)
    arguments = parser.parse_args()
    data = digits(arguments.data)
    for engine in arguments.engine:
        seconds, accuracy = ENGINES[engine](data, arguments.models, arguments.epochs)
        line = {
            "case": "sweep",
            "job": "train",
            "engine": engine,
            "seconds": round(seconds, 2),
            "best_accuracy": round(float(accuracy.max()), 4),
            "median_accuracy": round(float(np.median(accuracy)), 4),
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
