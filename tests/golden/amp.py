"""Writes amp.txt: small networks trained by torch with autocast and a GradScaler.

    python tests/golden/amp.py > tests/golden/amp.txt

Three networks 4-8-3 (Linear, Tanh, LayerNorm, Linear) learn by SGD with momentum against MSELoss, each alone. Element i of parameter
k of model m is sin(0.9 i + k + m + 1) / 2, of x sin(0.7 i + m), of the target cos(1.3 i), x and target
[batch, features]. Once with autocast to bf16, once to f16 with a scaler (init_scale 1024, growth_interval 2), where
the first number of model 1's x is 1e6 in step 2. A line is the precision, the step, what the numbers are, and the
numbers: losses of all models, scales of all models, or the parameters of model 2.
"""

import torch
from torch import nn

MODELS, BATCH, STEPS = 3, 6, 6


def show(precision, step, what, numbers):
    print(precision, step, what, " ".join(repr(float(x)) for x in torch.as_tensor(numbers)))


def of(shape, f):
    return f(torch.arange(torch.Size(shape).numel(), dtype=torch.float64)).float().reshape(shape)


def train(precision, dtype, scaler_of):
    models = [nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 3)) for _ in range(MODELS)]
    with torch.no_grad():
        for m, model in enumerate(models):
            for k, parameter in enumerate(model.parameters()):
                parameter.copy_(of(parameter.shape, lambda i: torch.sin(0.9 * i + k + m + 1) / 2))
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9) for model in models]
    scalers = [scaler_of() for _ in models]
    target = of([BATCH, 3], lambda i: torch.cos(1.3 * i))
    for step in range(STEPS):
        losses = []
        for m, (model, optimizer, scaler) in enumerate(zip(models, optimizers, scalers)):
            x = of([BATCH, 4], lambda i: torch.sin(0.7 * i + m))
            if scaler.is_enabled() and (step, m) == (2, 1):
                x[0, 0] = 1e6
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=dtype):
                loss = nn.functional.mse_loss(model(x), target)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            losses.append(loss)
        show(precision, step, "losses", torch.stack(losses).detach())
        if scalers[0].is_enabled():
            show(precision, step, "scales", [scaler.get_scale() for scaler in scalers])
        show(precision, step, "parameters", torch.cat([p.detach().flatten() for p in models[2].parameters()]))


def main():
    print(f"torch {torch.__version__}")
    train("bf16", torch.bfloat16, lambda: torch.amp.GradScaler("cpu", enabled=False))
    train("f16", torch.float16, lambda: torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2))


if __name__ == "__main__":
    main()
