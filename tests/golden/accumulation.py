"""Writes accumulation.txt: what torch's loop of micro-batches comes to, in double precision.

    python tests/golden/accumulation.py > tests/golden/accumulation.txt

Element i of parameter k is sin(0.9 i + k + 1) / 2, of the input sin(0.7 i), of the target cos(1.3 i); class i is
(2 i) mod 3 or, where said, 0 for every fourth item; class 0 is ignored then. A line is a name and numbers.
"""

import torch
from torch import nn


def of(shape, f):
    numel = torch.Size(shape).numel()
    return f(torch.arange(numel, dtype=torch.float64)).reshape(shape)


def show(name, numbers):
    print(name, " ".join(repr(x) for x in torch.as_tensor(numbers, dtype=torch.float64).detach().flatten().tolist()))


def filled(model):
    with torch.no_grad():
        for k, p in enumerate(model.parameters()):
            p.copy_(of(p.shape, lambda i: torch.sin(0.9 * i + k + 1) / 2))
    return model


def net():
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))


def with_norm():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3))


def classes(items):
    return (torch.arange(items) * 2) % 3


def ignored(items):
    return torch.where(torch.arange(items) % 4 == 0, 0, classes(items))


CASES = [
    ("mean", net, nn.MSELoss(), 8, 4, None),
    ("sum", net, nn.MSELoss(reduction="sum"), 8, 4, None),
    ("uneven", net, nn.MSELoss(), 10, 4, None),
    ("cross_entropy", net, nn.CrossEntropyLoss(), 8, 2, classes),
    ("ignored", net, nn.CrossEntropyLoss(ignore_index=0), 8, 2, ignored),
    ("batch_norm", with_norm, nn.MSELoss(), 8, 2, None),
]

for name, make, loss, items, n, targets in CASES:
    model = filled(make().double())
    decay = [p for p in model.parameters() if p.ndim > 1]
    biases = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": decay}, {"params": biases, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.05, weight_decay=0.1)
    x = of((items, 3), lambda i: torch.sin(0.7 * i))
    y = targets(items) if targets else of((items, 3), lambda i: torch.cos(1.3 * i))
    for step in range(2):
        optimizer.zero_grad()
        total = 0.0
        for xs, ys in zip(x.chunk(n), y.chunk(n)):
            share = 1.0 if loss.reduction == "sum" else len(xs) / items
            part = loss(model(xs), ys) * share
            part.backward()
            total += part.item()
        optimizer.step()
        show(f"{name} {step} loss", total)
    show(f"{name} gradient", model[0].weight.grad)
    for key, value in model.state_dict().items():
        show(f"{name} {key}", value.double())
