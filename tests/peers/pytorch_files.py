"""Writes small files of torch.save, and beside them as safetensors the numbers that PyTorch has in them.

    python tests/peers/pytorch_files.py tests/golden/pytorch/2.15

The folder's name is the version of PyTorch that is to write it: 1.13 (Python 3.11, `numpy<2`) or 2.15. Both need
`safetensors`. Nothing of the files is drawn, so another run writes the same numbers.
"""

import os
import sys
from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn


def numbers(*shape, start=0.0):
    """Numbers that differ, in single precision."""
    count = 1
    for size in shape:
        count *= size
    return (torch.arange(count, dtype=torch.float64) * 0.37 + start).sin().float().reshape(shape)


def network():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2))
    with torch.no_grad():
        for place, tensor in enumerate(net.state_dict().values()):
            if tensor.is_floating_point():
                tensor.copy_(numbers(*tensor.shape, start=place).abs() + 0.1 if place == 5 else numbers(*tensor.shape, start=place))
    return net


def train(net, optimizers, steps=2):
    x = numbers(8, 3)
    for _ in range(steps):
        net.zero_grad()
        (net(x) ** 2).mean().backward()
        for optimizer in optimizers:
            optimizer.step()


class Command:
    """What a file of somebody else's may have in it: here it would list the folder."""

    def __reduce__(self):
        return (os.system, ("true",))


class Writer:
    def __init__(self, folder):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def pt(self, name, value, legacy=True):
        torch.save(value, self.folder / f"{name}.pt")
        if legacy:
            path = self.folder / f"{name}_legacy.pt"
            torch.save(value, path, _use_new_zipfile_serialization=False)

    def expected(self, name, tensors):
        copies = {key: tensor.detach().clone().contiguous() for key, tensor in tensors.items()}
        path = self.folder / f"{name}.safetensors"
        save_file(copies, str(path))
        path.chmod(0o644)

    def state(self, name, state, **options):
        self.pt(name, state, **options)
        self.expected(name, state)


def optimizer_numbers(prefix, optimizer):
    found = {}
    for index, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            if value is not None:
                found[f"{prefix}.{index}.{name}"] = torch.as_tensor(value, dtype=None if torch.is_tensor(value) else torch.float32)
    return found


def checkpoint(write):
    """A training run's file, and the numbers of the step after it."""
    net = network()
    adam = torch.optim.Adam(net.parameters(), lr=0.01, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1)
    train(net, [adam])
    other = network()
    groups = [{"params": other[0].parameters(), "lr": 0.1}, {"params": other[3].parameters()}]
    sgd = torch.optim.SGD(groups, lr=0.05, momentum=0.9)
    amsgrad = torch.optim.Adam(other.parameters(), amsgrad=True)
    train(other, [sgd, amsgrad])
    schedule = torch.optim.lr_scheduler.MultiStepLR(adam, [10, 20])
    state = net.state_dict()
    whole = {
        "model": state,
        "ema": state,
        "optimizer": adam.state_dict(),
        "sgd": sgd.state_dict(),
        "amsgrad": amsgrad.state_dict(),
        "lr_scheduler": schedule.state_dict(),
        "epoch": 3,
        "best": 0.25,
        "name": "run é",
        "large": 2**70,
        "size": torch.Size([3, 4]),
        "device": torch.device("cpu"),
        "dtype": torch.float16,
        "rng": torch.get_rng_state()[:0],
    }
    write.pt("checkpoint", whole)
    found = {f"model.{name}": tensor for name, tensor in state.items()}
    found |= optimizer_numbers("optimizer", adam) | optimizer_numbers("sgd", sgd)
    found = {name: tensor.clone() for name, tensor in found.items()}
    x = numbers(5, 3, start=2.0)
    net.eval()
    found |= {"x": x, "y": net(x)}
    net.train()
    train(net, [adam], steps=1)
    found |= {f"gradient.{name}": p.grad for name, p in net.named_parameters()}
    found |= {f"after.{name}": p for name, p in net.named_parameters()}
    write.expected("checkpoint", found)


def main():
    folder = Path(sys.argv[1])
    version = ".".join(torch.__version__.split(".")[:2])
    assert folder.name == version, f"this is PyTorch {version}"
    write = Writer(folder)
    net = network()
    write.state("state_dict", net.state_dict())

    dtypes = {str(dtype).split(".")[1]: numbers(2, 3).mul(40).to(dtype) for dtype in
              (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64)}
    dtypes["bool"] = numbers(2, 3) > 0
    dtypes["number"] = torch.tensor(-1.5, dtype=torch.float64)
    dtypes["empty"] = torch.zeros(0, 4)
    dtypes["special"] = torch.tensor([float("inf"), -float("inf"), -0.0, 1e-45])
    write.state("dtypes", dtypes)

    base = numbers(4, 6)
    views = OrderedDict(
        zeta=base, alpha=base.t(), slice=base[1:, ::2], row=base[2], last=base.flatten()[23:], tied=base,
        spread=base[0, :3].unsqueeze(1).expand(3, 5), parameter=nn.Parameter(base[:, 0]),
    )
    write.state("views", views)

    checkpoint(write)
    # Small enough to be changed and read many thousand times.
    small = nn.Linear(2, 1)
    adam = torch.optim.Adam(small.parameters())
    with torch.no_grad():
        small.weight.copy_(numbers(1, 2))
        small.bias.copy_(numbers(1))
    small(numbers(3, 2)).sum().backward()
    adam.step()
    write.pt("small", {"model": small.state_dict(), "optimizer": adam.state_dict()})
    parallel = OrderedDict((f"module.{name}", tensor) for name, tensor in net.state_dict().items())
    parallel._metadata = OrderedDict((f"module.{path}" if path else "module", of) for path, of in net.state_dict()._metadata.items())
    parallel._metadata[""] = {"version": 1}
    write.pt("ddp", {"state_dict": parallel, "epoch": 1})

    # A legacy file of a whole model has the source text of its classes.
    write.pt("model", net, legacy=False)
    model = nn.Sequential(OrderedDict(body=net, again=net[0], gate=nn.Identity()))
    model.register_buffer("scratch", numbers(2), persistent=False)
    model.register_buffer("nothing", None)
    model.act = nn.functional.relu
    write.pt("nested_model", model, legacy=False)
    write.expected("nested_model", model.state_dict())

    # What is to be refused.
    write.pt("command", {"model": net.state_dict(), "extra": Command()})
    net.note = Command()
    write.pt("command_model", net, legacy=False)
    write.pt("integers", {"weight": numbers(2), "count": torch.zeros(2, dtype=torch.int32)})
    write.pt("keys", {"1": numbers(1), 1: numbers(2)})
    write.pt("dots", {"a.b": numbers(1), "a": {"b": numbers(2)}})
    write.pt("claims", {"weight": torch.zeros(1).expand(1_500_000_000)})
    write.pt("sparse", {"weight": torch.eye(2).to_sparse()})
    write.pt("tensor", numbers(2))


main()
