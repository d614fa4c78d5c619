"""PyTorch's side of examples/interchange.rs: writes a file for it to read, or checks the files that it wrote.

    python examples/interchange.py write examples/data/torch.safetensors
    python examples/interchange.py check target/interchange
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

MODELS = 5
TOLERANCE = 1e-5


def network():
    return nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.Tanh(), nn.Linear(16, 3))


def forward(population, x):
    """Runs all models of stacked weights on one input."""
    net = network()
    return vmap(lambda state: functional_call(net, state, (x,)))(population)


def write(path):
    torch.manual_seed(0)
    models = [network() for _ in range(MODELS)]
    population, _ = stack_module_state(models)
    x = torch.randn(4, 8)
    tensors = {f"model.{name}": tensor for name, tensor in network().state_dict().items()}
    model = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    tensors |= {f"population.{name}": tensor.detach() for name, tensor in population.items()}
    tensors["input"] = x
    with torch.no_grad():
        tensors["model_output"] = functional_call(network(), model, (x,))
        tensors["population_output"] = forward(population, x)
    save_file(tensors, path, metadata={"torch": torch.__version__})


def check(folder):
    model, population, results = (
        load_file(folder / f"{name}.safetensors") for name in ("model", "population", "results")
    )
    net = network()
    net.load_state_dict(model)  # Raises an error if a key or a shape is another.
    worst = 0.0
    with torch.no_grad():
        for what, ours, theirs in (
            ("one model", results["output"][2], net(results["input"])),
            ("the population", results["output"], forward(population, results["input"])),
        ):
            error = float((ours - theirs).abs().max())
            worst = max(worst, error)
            print(f"{what}: PyTorch {torch.__version__} computes the same within {error:.1e}")
    sys.exit(0 if worst < TOLERANCE else 1)


if __name__ == "__main__":
    deeds = {"write": write, "check": check}
    if len(sys.argv) != 3 or sys.argv[1] not in deeds:
        sys.exit(__doc__)
    deeds[sys.argv[1]](Path(sys.argv[2]))
