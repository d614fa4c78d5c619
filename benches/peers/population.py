"""The measurements of benches/population in PyTorch and JAX: each in its fastest known form.

    python population.py [--case tiny small medium] [--job train infer] [--engine torch-vmap torch-bmm jax-vmap]

A population is N independent networks of Linear layers with ReLU between them. `train` is one step for every
model on a minibatch of its own: forward, mean cross entropy, backward, Adam. `infer` is one forward pass of
every model at batch 1. One JSON line a measurement: microseconds for the whole population (median and best
after three steps that do not count), model-steps per second, and GFLOP/s, counted as 6 (training) or 2
(inference) per weight and item.

Engines: `torch-loop` (one model after the other, on a part of the population, since its cost is linear),
`torch-vmap` (torch.func over stacked parameters, fused Adam), `torch-bmm` (baddbmm over stacked weights
written by hand, fused Adam), `jax-vmap` (one jitted function for the whole step, buffers donated).
"""

import argparse
import json

from measure import measure

CASES = {
    "tiny": (10_000, (4, 16, 16, 2), 32),
    "small": (1_000, (16, 64, 64, 8), 64),
    "medium": (100, (64, 256, 256, 10), 64),
}
LEAST, MOST = 5, 400


def torch_data(models, widths, batch):
    import torch

    torch.manual_seed(0)
    inputs = torch.randn(models, batch, widths[0])
    return inputs, torch.randint(widths[-1], (models, batch))


def torch_network(widths):
    from torch import nn

    layers = []
    for before, after in zip(widths, widths[1:]):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def torch_loop(models, widths, batch, job):
    import torch
    from torch.nn.functional import cross_entropy

    measured = min(models, 200)
    networks = [torch_network(widths) for _ in range(measured)]
    inputs, targets = torch_data(measured, widths, batch)
    if job == "infer":

        def step():
            with torch.inference_mode():
                for network, x in zip(networks, inputs):
                    network(x[:1])
    else:
        optimizers = [torch.optim.Adam(network.parameters(), foreach=True) for network in networks]

        def step():
            for network, optimizer, x, y in zip(networks, optimizers, inputs, targets):
                optimizer.zero_grad()
                cross_entropy(network(x), y).backward()
                optimizer.step()

    return step, measured


def torch_stacked(forward, parameters, models, widths, batch, job):
    """A step over stacked parameters, given the forward pass of the whole population."""
    import torch
    from torch.nn.functional import cross_entropy

    inputs, targets = torch_data(models, widths, batch)
    if job == "infer":
        first = inputs[:, :1].contiguous()

        def step():
            with torch.inference_mode():
                forward(first)
    else:
        optimizer = torch.optim.Adam(parameters, fused=True)

        def step():
            optimizer.zero_grad(set_to_none=True)
            logits = forward(inputs).flatten(0, 1)
            # The sum over models of their mean losses gives each model exactly its own gradient.
            (cross_entropy(logits, targets.flatten(), reduction="sum") / batch).backward()
            optimizer.step()

    return step, models


def torch_vmap(models, widths, batch, job):
    from torch.func import functional_call, stack_module_state, vmap

    parameters, buffers = stack_module_state([torch_network(widths) for _ in range(models)])
    parameters = {name: p.detach().requires_grad_(job == "train") for name, p in parameters.items()}
    skeleton = torch_network(widths).to("meta")
    one = vmap(lambda p, b, x: functional_call(skeleton, (p, b), (x,)))
    forward = lambda x: one(parameters, buffers, x)
    return torch_stacked(forward, list(parameters.values()), models, widths, batch, job)


def torch_bmm(models, widths, batch, job):
    import torch

    layers = []
    for before, after in zip(widths, widths[1:]):
        weight = torch.randn(models, before, after).div_(before**0.5)
        layers.append((weight.requires_grad_(), torch.zeros(models, 1, after, requires_grad=True)))

    def forward(x):
        for weight, bias in layers[:-1]:
            # In inference mode nobody needs what was there before.
            relu = torch.relu if torch.is_grad_enabled() else torch.relu_
            x = relu(torch.baddbmm(bias, x, weight))
        weight, bias = layers[-1]
        return torch.baddbmm(bias, x, weight)

    parameters = [p for layer in layers for p in layer]
    return torch_stacked(forward, parameters, models, widths, batch, job)


def jax_vmap(models, widths, batch, job):
    import jax
    import jax.numpy as jnp

    keys = jax.random.split(jax.random.PRNGKey(0), len(widths) + 1)
    parameters = [
        (jax.random.normal(key, (models, after, before)) / before**0.5, jnp.zeros((models, after)))
        for key, before, after in zip(keys, widths, widths[1:])
    ]
    inputs = jax.random.normal(keys[-1], (models, batch, widths[0]))
    targets = jax.random.randint(keys[-2], (models, batch), 0, widths[-1])

    def forward(parameters, x):
        for weight, bias in parameters[:-1]:
            x = jax.nn.relu(x @ weight.T + bias)
        weight, bias = parameters[-1]
        return x @ weight.T + bias

    if job == "infer":
        compiled, first = jax.jit(jax.vmap(forward)), inputs[:, :1]
        return lambda: compiled(parameters, first).block_until_ready(), models

    def loss(parameters, x, y):
        scores = jax.nn.log_softmax(forward(parameters, x))
        return -jnp.take_along_axis(scores, y[:, None], 1).mean()

    def adam(parameters, means, squares, count, x, y):
        gradients = jax.grad(loss)(parameters, x, y)
        means = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, means, gradients)
        squares = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, squares, gradients)
        rate, root = 1e-3 / (1 - 0.9**count), (1 - 0.999**count) ** 0.5
        move = lambda p, m, v: p - rate * m / (jnp.sqrt(v) / root + 1e-8)
        return jax.tree.map(move, parameters, means, squares), means, squares

    compiled = jax.jit(jax.vmap(adam, in_axes=(0, 0, 0, None, 0, 0)), donate_argnums=(0, 1, 2))
    zeros = lambda: jax.tree.map(jnp.zeros_like, parameters)
    state, count = (parameters, zeros(), zeros()), 0.0

    def step():
        nonlocal state, count
        count += 1.0
        state = jax.block_until_ready(compiled(*state, count, inputs, targets))

    return step, models


ENGINES = {"torch-loop": torch_loop, "torch-vmap": torch_vmap, "torch-bmm": torch_bmm, "jax-vmap": jax_vmap}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, nargs="*", default=list(CASES))
    parser.add_argument("--job", choices=["train", "infer"], nargs="*", default=["train", "infer"])
    parser.add_argument("--engine", choices=ENGINES, nargs="*", default=list(ENGINES)[1:])
    parser.add_argument("--seconds", type=float, default=6.0, help="to measure for")
    arguments = parser.parse_args()
    for case in arguments.case:
        models, widths, batch = CASES[case]
        products = models * sum(before * after for before, after in zip(widths, widths[1:]))
        for job in arguments.job:
            flop = 6 * products * batch if job == "train" else 2 * products
            for engine in arguments.engine:
                step, measured = ENGINES[engine](models, widths, batch, job)
                median, best = (t * models / measured for t in measure(step, arguments.seconds, LEAST, MOST))
                line = {
                    "case": case,
                    "job": job,
                    "engine": engine,
                    "us_per_step": round(median * 1e6),
                    "best_us": round(best * 1e6),
                    "model_steps_per_s": round(models / median),
                    "gflops": round(flop / median / 1e9, 2),
                }
                print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
