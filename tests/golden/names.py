"""Writes names.txt: the public names of torch.nn and what belongs to it.

    python tests/golden/names.py > tests/golden/names.txt
"""

import inspect

import torch
from torch import nn, optim
from torch.nn import utils
from torch.nn.utils import parametrizations, parametrize, rnn


def names(module, of, inherited=()):
    """The names of a module that were made there or are listed as its own."""
    own = getattr(module, "__all__", None)
    for name, value in sorted(vars(module).items()):
        if name.startswith("_") or not of(value):
            continue
        if own is not None and name not in own and name not in inherited:
            continue
        if own is None and not str(getattr(value, "__module__", "")).startswith("torch"):
            continue
        yield name


def functional():
    """The functions of torch.nn.functional that its documentation lists, without in-place twins."""
    for name in names(nn.functional, callable):
        value = getattr(nn.functional, name)
        if inspect.isclass(value) or name.endswith("_") or name.endswith("_with_indices"):
            continue
        if "torch_function" in name or name in ("assert_int_or_pair", "boolean_dispatch"):
            continue
        yield name


def main():
    functions = inspect.isfunction
    both = lambda value: inspect.isfunction(value) or inspect.isclass(value)
    sections = {
        "torch.nn": names(nn, inspect.isclass),
        "torch.nn.functional": functional(),
        "torch.nn.init": (name for name in names(nn.init, functions) if name.endswith("_") or name == "calculate_gain"),
        "torch.optim": names(optim, inspect.isclass),
        "torch.optim.lr_scheduler": names(optim.lr_scheduler, inspect.isclass),
        "torch.optim.swa_utils": names(optim.swa_utils, both),
        "torch.nn.utils": names(utils, functions),
        "torch.nn.utils.parametrize": names(parametrize, functions),
        "torch.nn.utils.parametrizations": names(parametrizations, functions),
        "torch.nn.utils.rnn": names(rnn, both),
        "torch.amp": names(torch.amp, both),
    }
    print(f"torch {torch.__version__.split('+')[0]}")
    for title, found in sections.items():
        print(f"\n[{title}]")
        for name in found:
            print(name)


if __name__ == "__main__":
    main()
