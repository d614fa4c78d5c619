"""Writes optim.txt: what Muon, SparseAdam, SWALR, update_bn, joined statistics and parameter groups come to in torch.

    python tests/golden/optim.py > tests/golden/optim.txt

Element i of a parameter is sin(0.9 i + 1) / 2, of its gradient at step k cos(1.3 i + k), of an input sin(0.7 i). A line
is a name and numbers.
"""

import torch
from torch import nn
from torch.optim.swa_utils import SWALR, update_bn


def of(shape, f, dtype=torch.float64):
    numel = torch.Size(shape).numel()
    return f(torch.arange(numel, dtype=torch.float64)).reshape(shape).to(dtype)


def show(name, numbers):
    if isinstance(numbers, torch.Tensor):
        numbers = numbers.detach().double().flatten().tolist()
    print(name, " ".join(repr(x) for x in numbers))


def first(shape, dtype=torch.float64):
    return of(shape, lambda i: torch.sin(0.9 * i + 1) / 2, dtype)


def muon():
    cases = [
        ("muon", (3, 5), {}),
        ("muon_tall", (6, 4), dict(nesterov=False, adjust_lr_fn="match_rms_adamw", ns_steps=3)),
        ("muon_spectral", (2, 4), dict(adjust_lr_fn="spectral_unclamped", momentum=0.4, weight_decay=0.0)),
    ]
    for name, shape, options in cases:
        weight = nn.Parameter(first(shape, torch.float32))
        optimizer = torch.optim.Muon([weight], lr=0.05, **options)
        for k in range(3):
            weight.grad = of(shape, lambda i: torch.cos(1.3 * i + k), torch.float32)
            optimizer.step()
            show(f"{name} {k}", weight)


def sparse_adam():
    table = nn.Embedding(6, 3, sparse=True, padding_idx=0).double()
    with torch.no_grad():
        table.weight.copy_(first((6, 3)))
    optimizer = torch.optim.SparseAdam(table.parameters(), lr=0.05, betas=(0.8, 0.9))
    for k, rows in enumerate([[1, 2, 2, 0], [4, 1], [5, 5, 4]]):
        optimizer.zero_grad()
        y = table(torch.tensor(rows))
        y.backward(of(y.shape, lambda i: torch.cos(1.3 * i + k)))
        optimizer.step()
        show(f"sparse_adam {k}", table.weight)
    state = optimizer.state[table.weight]
    show("sparse_adam exp_avg", state["exp_avg"])
    show("sparse_adam exp_avg_sq", state["exp_avg_sq"])


def swalr():
    for name, options in [
        ("cos", dict(anneal_epochs=4)),
        ("linear", dict(anneal_epochs=3, anneal_strategy="linear")),
        ("at_once", dict(anneal_epochs=0)),
    ]:
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.4)
        scheduler = SWALR(optimizer, swa_lr=0.05, **options)
        rates = [optimizer.param_groups[0]["lr"]]
        for _ in range(6):
            optimizer.step()
            scheduler.step()
            rates.append(optimizer.param_groups[0]["lr"])
        show(f"swalr_{name}", rates)


def update_statistics():
    norm = nn.BatchNorm1d(2, momentum=0.3).double().eval()
    norm(of((3, 2), torch.sin))
    update_bn([of((4, 2), lambda i: torch.sin(0.7 * i)), of((3, 2), lambda i: torch.sin(1.7 * i + 1))], norm)
    show("update_bn mean", norm.running_mean)
    show("update_bn var", norm.running_var)


def gathered():
    """Statistics of shards are those of the batch; gradients by autograd of the formula, in the shards' statistics."""
    batch = of((9, 2), lambda i: torch.sin(0.7 * i) + i / 5)
    shards = [batch[:4], batch[4:6], batch[6:]]
    eps = 1e-3
    _, mean, invstd = torch.native_batch_norm(batch, None, None, None, None, True, 0.0, eps)
    show("gathered mean", mean)
    show("gathered invstd", invstd)
    show("gathered unbiased_var", batch.var(0))
    # The gradient of sum(cos(1.3 i) * [mean, invstd]) in each number of the batch, by way of the shards.
    parts = [shard.clone().requires_grad_() for shard in shards]
    whole = torch.cat(parts)
    all_mean = whole.mean(0)
    all_invstd = (whole.var(0, correction=0) + eps).rsqrt()
    (torch.cat([all_mean, all_invstd]) * of((4,), lambda i: torch.cos(1.3 * i))).sum().backward()
    show("gathered gradient", torch.cat([part.grad for part in parts]))


def param_groups():
    """Weights and biases of two layers in two groups, whose rates are scheduled: the parameters, then the rates."""
    lr_scheduler = torch.optim.lr_scheduler
    cases = [
        ("adamw_lambda", torch.optim.AdamW, dict(lr=0.05, weight_decay=0.1), dict(lr=0.02, weight_decay=0.0),
         lambda o: lr_scheduler.LambdaLR(o, [lambda k: 1 / (1 + k), lambda k: 0.5**k])),
        ("sgd_step", torch.optim.SGD, dict(lr=0.1, momentum=0.9, weight_decay=0.1), dict(momentum=0.0, weight_decay=0.0),
         lambda o: lr_scheduler.StepLR(o, step_size=2, gamma=0.5)),
        ("adamw_cycle", torch.optim.AdamW, dict(lr=0.05, weight_decay=0.1), dict(betas=(0.8, 0.9), weight_decay=0.0),
         lambda o: lr_scheduler.OneCycleLR(o, max_lr=[0.05, 0.01], total_steps=8)),
        ("sgd_added", torch.optim.SGD, dict(lr=0.1, momentum=0.9, weight_decay=0.1), dict(lr=0.03, momentum=0.5),
         lambda o: lr_scheduler.StepLR(o, step_size=2, gamma=0.5)),
    ]
    for name, kind, options, of_biases, scheduled in cases:
        net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
        weights = [p for p in net.parameters() if p.dim() > 1]
        biases = [p for p in net.parameters() if p.dim() == 1]
        with torch.no_grad():
            for p in net.parameters():
                p.copy_(first(p.shape))
        # The added group takes its parameters out of group 0, with the state that they have.
        is_added = name.endswith("added")
        groups = [dict(params=weights + biases)] if is_added else [dict(params=weights), dict(params=biases, **of_biases)]
        optimizer = kind(groups, **options)
        scheduler = scheduled(optimizer)
        for k in range(5):
            if is_added and k == 2:
                del optimizer.param_groups[0]["params"][2:]
                optimizer.add_param_group(dict(params=biases, **of_biases))
            for p in net.parameters():
                p.grad = of(p.shape, lambda i: torch.cos(1.3 * i + k))
            optimizer.step()
            scheduler.step()
            rates = torch.tensor([group["lr"] for group in optimizer.param_groups], dtype=torch.float64)
            show(f"groups_{name} {k}", torch.cat([p.flatten() for p in net.parameters()] + [rates]))
        for number, group in enumerate(optimizer.state_dict()["param_groups"]):
            show(f"groups_{name} params {number}", group["params"])


def main():
    print(f"torch {torch.__version__}")
    muon()
    sparse_adam()
    swalr()
    update_statistics()
    gathered()
    param_groups()


if __name__ == "__main__":
    main()
