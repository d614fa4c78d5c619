"""Writes shared.txt: models with one nn.Parameter in common, trained by torch.

    python tests/golden/shared.py > tests/golden/shared.txt

Twenty networks 3-5-2 share the weight of their first layer; the loss is the sum of their losses, Adam makes five
steps. Element i of parameter k of model m is sin(0.9 i + k + m + 1) / 2 (m is 0 for the shared one), of x sin(0.7 i),
of the target cos(1.3 i), both [models, batch, features]. A line is the step, what the numbers are, and the numbers:
everything in f64.
"""

import torch
from torch import nn

MODELS, BATCH, STEPS = 20, 4, 5


def show(step, what, numbers):
    print(step, what, " ".join(repr(x) for x in numbers.detach().flatten().tolist()))


def main():
    print(f"torch {torch.__version__}")
    of = lambda shape, f: f(torch.arange(torch.Size(shape).numel(), dtype=torch.float64)).reshape(shape)
    models = [nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double() for _ in range(MODELS)]
    with torch.no_grad():
        for m, model in enumerate(models):
            for k, parameter in enumerate(model.parameters()):
                parameter.copy_(of(parameter.shape, lambda i: torch.sin(0.9 * i + k + m + 1) / 2))
    for model in models[1:]:
        model[0].weight = models[0][0].weight
    # What several models have is listed, hence updated, once.
    parameters = nn.ModuleList(models).parameters()
    optimizer = torch.optim.Adam(parameters, lr=0.05)
    x = of([MODELS, BATCH, 3], lambda i: torch.sin(0.7 * i))
    target = of([MODELS, BATCH, 2], lambda i: torch.cos(1.3 * i))
    for step in range(STEPS):
        optimizer.zero_grad()
        losses = torch.stack([nn.functional.mse_loss(model(x[m]), target[m]) for m, model in enumerate(models)])
        losses.sum().backward()
        show(step, "losses", losses)
        show(step, "gradient", models[0][0].weight.grad)
        optimizer.step()
    show(STEPS, "0.weight", models[0][0].weight)
    for name in ["0.bias", "2.weight", "2.bias"]:
        show(STEPS, name, torch.stack([model.get_parameter(name) for model in models]))


if __name__ == "__main__":
    main()
