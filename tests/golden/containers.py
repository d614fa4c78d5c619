"""Writes containers.txt: random operations on torch's containers, and what came of each.

    python tests/golden/containers.py > tests/golden/containers.txt

A line `new KIND ENTRIES` begins a container; each other line is an operation, what it gave or `! error`, and
the entries after it, separated by tabs. An entry is `name=size`. After an error the entries are as before it:
torch may have done half of the operation, neurarch does nothing of it.
"""

import random
from collections import OrderedDict

import torch
from torch import nn

NAMES = ["a", "b", "0", "1", "2", "3", "5", "7", "x.y", "", "append", "keys", "get"]
GOOD = NAMES[:8]
LIST = ["get", "set", "slice", "append", "extend", "iadd"]
MODULES = LIST + ["del", "pop", "del_slice", "pop_slice", "insert", "insert", "add", "add_module"]
DICT = ["item", "put", "pop_name", "del_name", "update", "clear"]
OPERATIONS = {
    "Sequential": MODULES + ["mul", "repeat"],
    "ModuleList": MODULES,
    "ModuleDict": DICT,
    "ParameterList": LIST,
    "ParameterDict": DICT + ["find", "popitem", "setdefault", "or"],
}
draw = random.Random(2)
size = 0


def entry(kind):
    """A module or parameter that no other looks like."""
    global size
    size += 1
    if kind.startswith("Parameter"):
        return nn.Parameter(torch.empty(size, device="meta"))
    return nn.Linear(1, size, device="meta")


def size_of(entry):
    return str(entry.shape[0] if isinstance(entry, nn.Parameter) else entry.out_features)


def entries(container):
    parameters = isinstance(container, (nn.ParameterList, nn.ParameterDict))
    held = container._parameters if parameters else container._modules
    return ",".join(f"{name}={size_of(entry)}" for name, entry in held.items())


def pairs(items):
    return " ".join(f"{name}={size_of(entry)}" for name, entry in items)


def new(kind, items):
    if kind.endswith("List"):
        return getattr(nn, kind)([entry for _, entry in items])
    return getattr(nn, kind)(OrderedDict(items))


def operation(kind, container):
    """Draws an operation: how it is written, and a function that does it and gives its result."""
    op = draw.choice(OPERATIONS[kind])
    index, name, made = draw.randint(-6, 6), draw.choice(NAMES), entry(kind)
    if kind == "ParameterDict" and op in ("item", "pop_name"):
        name = draw.choice(GOOD)  # torch finds its own methods here.
    optional = lambda: draw.choice([None, None, *range(-6, 7)])
    cut = slice(optional(), optional(), draw.choice([None, None, 1, -1, 2, -2, 3, 0]))
    bounds = " ".join("_" if bound is None else str(bound) for bound in (cut.start, cut.stop, cut.step))
    more = [entry(kind) for _ in range(draw.randint(0, 3))]
    sizes = " ".join(map(size_of, more))
    other = lambda: nn.Sequential(*more) if kind == "Sequential" else more
    named = [(draw.choice(NAMES), entry(kind)) for _ in range(2)]
    good = [(draw.choice(GOOD), entry(kind)) for _ in range(2)]
    times = draw.randint(-1, 3)
    return {
        "get": (f"{index}", lambda: size_of(container[index])),
        "set": (f"{index} {size_of(made)}", lambda: container.__setitem__(index, made)),
        "del": (f"{index}", lambda: container.__delitem__(index)),
        "pop": (f"{index}", lambda: size_of(container.pop(index))),
        "slice": (bounds, lambda: entries(container[cut])),
        "del_slice": (bounds, lambda: container.__delitem__(cut)),
        "pop_slice": (bounds, lambda: entries(container.pop(cut))),
        "append": (size_of(made), lambda: container.append(made)),
        "insert": (f"{index} {size_of(made)}", lambda: container.insert(index, made)),
        "extend": (sizes, lambda: container.extend(more)),
        "iadd": (sizes, lambda: container.__iadd__(other())),
        "add": (sizes, lambda: entries(container + other())),
        "add_module": (f"{name}={size_of(made)}", lambda: container.add_module(name, made)),
        "mul": (f"{times}", lambda: entries(container * times)),
        "repeat": (f"{times}", lambda: container.__imul__(times)),
        "item": (name, lambda: size_of(container[name])),
        "put": (f"{name}={size_of(made)}", lambda: container.__setitem__(name, made)),
        "pop_name": (name, lambda: size_of(container.pop(name))),
        "del_name": (name, lambda: container.__delitem__(name)),
        "update": (pairs(named), lambda: container.update(named)),
        "clear": ("", lambda: container.clear()),
        "find": (name, lambda: "None" if container.get(name) is None else size_of(container.get(name))),
        "popitem": ("", lambda: pairs([container.popitem()])),
        "setdefault": (f"{name}={size_of(made)}", lambda: size_of(container.setdefault(name, made))),
        "or": (pairs(good), lambda: entries(container | nn.ParameterDict(good))),
    }[op] + (op,)


def words(error):
    """The error's text; that of a `KeyError` which is only the key is written as Python prints it."""
    text = str(error.args[0])
    if isinstance(error, KeyError) and " " not in text:
        text = f"KeyError: '{text}'"
    return "! " + text.replace("<class 'torch.nn.modules.container.Sequential'>", "Sequential")


def main():
    print(f"torch {torch.__version__}")
    for _ in range(200):
        kind = draw.choice(list(OPERATIONS))
        names = draw.sample(GOOD, draw.randint(0, 4))
        if draw.random() < 0.7 or kind.endswith("List"):
            names = [str(number) for number in range(len(names))]
        items = [(name, entry(kind)) for name in names]
        container = new(kind, items)
        print(f"new {kind} {entries(container)}")
        for _ in range(8):
            if len(container) > 24:
                break
            fields = {"_modules": container._modules, "_parameters": container._parameters}
            fields |= {"_keys": container._keys} if kind == "ParameterDict" else {}
            before = {field: type(held)(held) for field, held in fields.items()}
            arguments, deed, op = operation(kind, container)
            try:
                result = deed()
                result = result if isinstance(result, str) else ""
            except Exception as error:
                result = words(error)
                for field, held in before.items():
                    container.__dict__[field] = held
            print(f"{op} {arguments}\t{result}\t{entries(container)}")


if __name__ == "__main__":
    main()
