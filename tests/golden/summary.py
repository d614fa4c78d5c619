"""Writes `summary.txt`: what torchinfo says of models, which `tests/torch/report/summary.rs` says, too.

    python tests/golden/summary.py > tests/golden/summary.txt
"""

from importlib.metadata import version

import torch
from torch import nn
from torchinfo import summary

COLUMNS = ("input_size", "output_size", "num_params", "params_percent", "kernel_size", "mult_adds", "trainable")


def show(name, model, input_size, **settings):
    settings.setdefault("col_names", COLUMNS)
    text = str(summary(model, input_size=input_size, verbose=0, **settings))
    # How Python prints a member of an `Enum` with strings depends on its version: the documentation has `(M)`.
    text = text.replace("(Units.MEGABYTES)", "(M)")
    print(f"### {name}\n{text}")


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + self.downsample(x))


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(6, 6), nn.ReLU())
        self.out = nn.Linear(6, 3)

    def forward(self, x):
        return self.out(self.inner(self.inner(x)))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.decoder = nn.Linear(4, 10, bias=False)
        self.decoder.weight = self.embedding.weight

    def forward(self, x):
        return self.decoder(self.embedding(x))


class Several(nn.Module):
    """Two arrays and a keyword argument, a list that is not called, a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.join = nn.Bilinear(4, 3, 2)
        self.layers = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
        self.scale = nn.Parameter(torch.ones(2))

    def forward(self, words, features, mask=None):
        y = self.join(self.embedding(words), features)
        for layer in self.layers:
            y = layer(y)
        return y * self.scale * mask


class Alias(nn.Module):
    """A module with two names, which is shown under the second."""

    def __init__(self):
        super().__init__()
        self.block = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
        self.first = self.block[0]

    def forward(self, x):
        return self.block(self.first(x))


def lenet():
    features = nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)
    )
    classifier = nn.Sequential(
        nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)
    )
    return nn.Sequential(features, classifier)


print(f"torchinfo {version('torchinfo')}, torch {version('torch')}")
mlp = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 2))
show("mlp", mlp, (32, 4))
show("mlp by default", mlp, (32, 4), col_names=None)
mlp[0].weight.requires_grad_(False)
mlp[2].requires_grad_(False)
show("mlp frozen", mlp, (32, 4))
show("lenet", lenet(), (8, 1, 28, 28))
show("lenet depth 1", lenet(), (8, 1, 28, 28), depth=1)
show("block", Block(8, 16, 2), (2, 8, 16, 16))
show("lstm", nn.LSTM(5, 7, num_layers=2, batch_first=True), (3, 11, 5))
show("encoder", nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), (2, 9, 16))
show("twice", Twice(), (5, 6))
show("tied", Tied(), (3, 7), dtypes=[torch.long])
show("several", Several(), [(3,), (3, 3)], dtypes=[torch.long, torch.float], mask=torch.ones(2))
show("alias", Alias(), (2, 3))
