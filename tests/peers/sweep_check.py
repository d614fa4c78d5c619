"""Loads what examples/sweep wrote into PyTorch and compares accuracies with results.csv.

    python sweep_check.py target/sweep [--data examples/data/digits.csv.gz]
"""

import argparse
import csv
import pathlib
import sys

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from torch.func import functional_call, vmap

DIGITS = pathlib.Path(__file__).parents[2] / "examples/data/digits.csv.gz"


def validation(path):
    """The last fifth of the images, which no model trained on, and their labels."""
    table = torch.from_numpy(np.loadtxt(path, delimiter=",", dtype=np.float32))
    table = table[len(table) * 4 // 5 :]
    return table[:, :64] / 16, table[:, 64].long()


def network(state):
    """The network of the sweep, with dropout if the names of the tensors say so."""
    last = max(int(name.split(".")[0]) for name in state)
    classes, hidden = state[f"{last}.weight"].shape[-2:]
    dropout = [nn.Dropout()] if last == 3 else []
    return nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), *dropout, nn.Linear(hidden, classes)).eval()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--data", default=DIGITS)
    arguments = parser.parse_args()
    images, labels = validation(arguments.data)
    with open(arguments.folder / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    told = torch.tensor([float(row["validation_accuracy"]) for row in rows], dtype=torch.float64)

    best = load_file(arguments.folder / "best.safetensors")
    model = network(best)
    model.load_state_dict(best)  # Strict: no name may be missing or left over.
    with torch.inference_mode():
        accuracy = (model(images).argmax(-1) == labels).double().mean()
    one_image = 1 / len(labels)
    is_best = abs(accuracy - told.max()) < one_image / 2
    print(f"best.safetensors: accuracy {accuracy:.4f}, results.csv says {told.max():.4f}")

    population = load_file(arguments.folder / "population.safetensors")
    skeleton = network(population).to("meta")
    with torch.inference_mode():
        logits = vmap(lambda state: functional_call(skeleton, state, (images,)))(population)
        accuracies = (logits.argmax(-1) == labels).double().mean(1)
    differing = (accuracies - told).abs() > one_image / 2
    print(f"population.safetensors: {len(rows)} models, {int(differing.sum())} differ from results.csv")
    for index in differing.nonzero().flatten().tolist():
        top = logits[index].topk(2).values
        print(f"  model {index}: accuracy {accuracies[index]:.4f}, results.csv says {told[index]:.4f};")
        print(f"    least distance between its two best classes: {(top[:, 0] - top[:, 1]).min():.1e}")
    sys.exit(0 if is_best and not differing.any() else 1)


if __name__ == "__main__":
    main()
