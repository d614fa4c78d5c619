"""Repeats in PyTorch the training that examples/training_curve wrote down, and compares losses and weights.

    python training_curve.py target/training_curve.safetensors
"""

import sys

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.functional import cross_entropy

TOLERANCE = 1e-4


def difference(ours, theirs):
    """The greatest difference, relative to the greatest number."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    record = load_file(sys.argv[1])
    part = lambda prefix: {n.removeprefix(prefix): t for n, t in record.items() if n.startswith(prefix)}
    initial, final = part("initial."), part("final.")
    hidden, features = initial["0.weight"].shape
    model = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, len(initial["2.bias"])))
    model.load_state_dict(initial)
    optimizer = torch.optim.Adam(model.parameters(), lr=float(record["lr"]))

    worst = 0.0
    for step, (inputs, targets) in enumerate(zip(record["inputs"], record["targets"])):
        optimizer.zero_grad()
        loss = cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()
        ours, theirs = float(record["losses"][step]), loss.item()
        error = abs(ours - theirs) / abs(theirs)
        worst = max(worst, error)
        print(f"step {step + 1:2}: loss {ours:.7f}, PyTorch {theirs:.7f}, relative error {error:.1e}")
    for name, theirs in model.state_dict().items():
        error = difference(final[name], theirs)
        worst = max(worst, error)
        print(f"{name} after {len(record['losses'])} steps: relative error {error:.1e}")
    print(f"greatest relative error {worst:.1e}, allowed {TOLERANCE:.0e}")
    sys.exit(0 if worst < TOLERANCE else 1)


if __name__ == "__main__":
    main()
