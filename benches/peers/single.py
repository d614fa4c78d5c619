"""The measurements of benches/single in PyTorch: one model of each kind, and small populations by vmap.

    python single.py [--case mlp cnn transformer lstm tiny cnns grus] [--compile] [--threads 2]

One JSON line a case: microseconds of a training step in training mode (forward, mean cross entropy, backward,
fused Adam) and of a forward pass in evaluation mode, median and best after three steps that do not count.
`--compile` runs single models through torch.compile.

`cnns` and `grus` are populations: torch.func.vmap over stacked parameters, each model with a minibatch of its own,
fused Adam on the stacked parameters. vmap does not take nn.GRU ("Batching rule not implemented for
aten::gru.input"), so theirs is written out: one product for the inputs of all time steps, one for the state of each.
"""

import argparse
import json

import torch
from measure import measure
from torch import nn
from torch.nn.functional import cross_entropy

LEAST, MOST = 7, 2000


class Recurrent(nn.Module):
    def __init__(self, layer, head):
        super().__init__()
        self.rnn, self.head = layer, head

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(256, 8, 1024, dropout=0.0, batch_first=True)
        self.enc = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(256, 10)

    def forward(self, x):
        return self.head(self.enc(x).mean(1))


class WrittenGRU(nn.Module):
    """A GRU of one layer, batch first, from functions that vmap takes."""

    def __init__(self, features, hidden):
        super().__init__()
        self.of = nn.GRU(features, hidden, batch_first=True)
        self.hidden = hidden

    def forward(self, x):
        of, states = self.of, []
        inputs = nn.functional.linear(x, of.weight_ih_l0, of.bias_ih_l0)
        h = x.new_zeros(x.shape[0], self.hidden)
        for given in inputs.unbind(1):
            xr, xz, xn = given.chunk(3, -1)
            hr, hz, hn = nn.functional.linear(h, of.weight_hh_l0, of.bias_hh_l0).chunk(3, -1)
            r, z = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
            n = torch.tanh(xn + r * hn)
            h = n + z * (h - n)
            states.append(h)
        return torch.stack(states, 1), h


def mlp(*widths):
    layers = []
    for before, after in zip(widths, widths[1:]):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def cnn():
    def block(before, after):
        return [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]

    return nn.Sequential(*block(1, 32), *block(32, 64), nn.Flatten(), nn.Linear(64 * 49, 10))


def small_cnn():
    def block(before, after):
        return [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]

    return nn.Sequential(*block(1, 8), *block(8, 8), nn.Flatten(), nn.Linear(8 * 9, 10))


# For each case the network, the shape of a minibatch, the classes, and how many models there are.
CASES = {
    "mlp": (lambda: mlp(784, 1024, 1024, 10), (128, 784), 10, 1),
    "cnn": (cnn, (64, 1, 28, 28), 10, 1),
    "transformer": (Encoder, (8, 128, 256), 10, 1),
    "lstm": (lambda: Recurrent(nn.LSTM(64, 128, batch_first=True), nn.Linear(128, 10)), (32, 64, 64), 10, 1),
    "tiny": (lambda: mlp(4, 16, 16, 2), (32, 4), 2, 1),
    "cnns": (small_cnn, (32, 1, 12, 12), 10, 64),
    "grus": (lambda: Recurrent(WrittenGRU(8, 16), nn.Linear(16, 10)), (32, 16, 8), 10, 256),
}


def single(make, shape, classes, compiled):
    """Steps of training and inference of one model."""
    network, x, y = make(), torch.randn(shape), torch.randint(classes, shape[:1])
    run = torch.compile(network) if compiled else network
    optimizer = torch.optim.Adam(network.parameters(), fused=True)

    def train():
        optimizer.zero_grad()
        cross_entropy(run(x), y).backward()
        optimizer.step()

    def infer():
        with torch.inference_mode():
            run(x)

    return train, infer, network.eval


def population(make, shape, classes, models):
    """Steps of training and inference of a population."""
    from torch.func import functional_call, stack_module_state, vmap

    parameters, buffers = stack_module_state([make() for _ in range(models)])
    parameters = {name: p.detach().requires_grad_() for name, p in parameters.items()}
    skeleton = make().to("meta")
    one = vmap(lambda p, b, x: functional_call(skeleton, (p, b), (x,)))
    x, y = torch.randn(models, *shape), torch.randint(classes, (models, shape[0]))
    optimizer = torch.optim.Adam(parameters.values(), fused=True)

    def train():
        optimizer.zero_grad()
        # The sum over models of their mean losses gives each model exactly its own gradient.
        logits = one(parameters, buffers, x).flatten(0, 1)
        (cross_entropy(logits, y.flatten(), reduction="sum") / shape[0]).backward()
        optimizer.step()

    def infer():
        with torch.inference_mode():
            one(parameters, buffers, x)

    return train, infer, skeleton.eval


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, nargs="*", default=list(CASES))
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--threads", type=int, default=0, help="one for each core if 0")
    parser.add_argument("--seconds", type=float, default=5.0, help="to measure for")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    for case in arguments.case:
        torch.manual_seed(0)
        make, shape, classes, models = CASES[case]
        if models == 1:
            train, infer, evaluate = single(make, shape, classes, arguments.compile)
        else:
            train, infer, evaluate = population(make, shape, classes, models)
        times = [*measure(train, arguments.seconds, LEAST, MOST)]
        evaluate()
        times += measure(infer, arguments.seconds, LEAST, MOST)
        keys = ["train_us", "train_best_us", "infer_us", "infer_best_us"]
        numbers = {key: round(time * 1e6, 1) for key, time in zip(keys, times)}
        print(json.dumps({"case": case, "engine": "torch-vmap" if models > 1 else "torch", **numbers}), flush=True)


if __name__ == "__main__":
    main()
