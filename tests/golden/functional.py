"""Writes functional.txt: what functions of torch.nn.functional and torch.nn.utils give, and their gradients.

    python tests/golden/functional.py > tests/golden/functional.txt

Element i of input k is sin(0.7 i + k), of a grid 1.6 times that, of variances 1.5 more, of the gradient of the result
cos(1.3 i): everything in f64, but grouped_mm in f32, which is all that it takes. A line is the case, `output` or `grad/k`, and numbers. What torch makes parameters of
has no gradients.
"""

import itertools

import torch
import torch.nn.functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights
from torch.nn.utils.rnn import unpad_sequence


def numbers(shape, k, f=torch.sin):
    numel = torch.Size(shape).numel()
    return f(0.7 * torch.arange(numel, dtype=torch.float64) + k).reshape(shape)


def show(name, what, x):
    print(name, what, " ".join(repr(x) for x in x.detach().double().flatten().tolist()))


def run(name, f, *inputs):
    inputs = [x.clone().requires_grad_() for x in inputs]
    y = f(*inputs)
    show(name, "output", y)
    if not y.requires_grad:
        return
    dy = torch.cos(1.3 * torch.arange(y.numel(), dtype=torch.float64)).reshape(y.shape)
    gradients = torch.autograd.grad(y, inputs, dy, allow_unused=True)
    for k, gradient in enumerate(gradients):
        show(name, f"grad/{k}", torch.zeros_like(inputs[k]) if gradient is None else gradient)


def grid_sample():
    grid = lambda shape: numbers(shape, 1, lambda x: 1.6 * torch.sin(x))
    paddings = ["zeros", "border", "reflection"]
    for mode, padding, align in itertools.product(["bilinear", "nearest", "bicubic"], paddings, [False, True]):
        f = lambda x, g: F.grid_sample(x, g, mode=mode, padding_mode=padding, align_corners=align)
        run(f"grid_sample_{mode}_{padding}_{int(align)}_2d", f, numbers((2, 2, 3, 4), 0), grid((2, 3, 2, 2)))
        if mode != "bicubic":
            run(f"grid_sample_{mode}_{padding}_{int(align)}_3d", f, numbers((1, 2, 2, 3, 4), 0), grid((1, 2, 3, 2, 3)))


def affine_grid():
    for align in [False, True]:
        run(f"affine_grid_{int(align)}_2d", lambda t: F.affine_grid(t, (2, 1, 3, 4), align), numbers((2, 2, 3), 0))
        run(f"affine_grid_{int(align)}_3d", lambda t: F.affine_grid(t, (1, 1, 2, 3, 2), align), numbers((1, 3, 4), 0))
    run("affine_grid_one", lambda t: F.affine_grid(t, (1, 1, 1, 3), True), numbers((1, 2, 3), 0))


def distances():
    for p in [0.0, 0.5, 1.0, 2.0, 3.0, float("inf")]:
        run(f"pdist_{p}", lambda x: F.pdist(x, p), numbers((4, 3), 0))


def convolution():
    run("conv_tbc", lambda x, w, b: F.conv_tbc(x, w, b, 1), numbers((5, 2, 3), 0), numbers((2, 3, 4), 1), numbers((4,), 2))


def linear_cross_entropy():
    x, classes = numbers((4, 3), 0), torch.tensor([1, 0, 4, 2])
    f = lambda x, w: F.linear_cross_entropy(x, w, classes)
    run("linear_cross_entropy", f, x, numbers((5, 3), 1))
    f = lambda x, w, b: F.linear_cross_entropy(
        x, w, classes, linear_bias=b, weight=torch.tensor([1.0, 2.0, 0.5, 1.5, 1.0], dtype=torch.float64),
        reduction="sum", ignore_index=0, label_smoothing=0.1)
    run("linear_cross_entropy_options", f, x, numbers((5, 3), 1), numbers((5,), 2))
    deep = torch.tensor([[0, 1], [4, 2], [3, 3], [2, 0]])
    f = lambda x, w, b: F.linear_cross_entropy(x, w, deep, linear_bias=b, reduction="none")
    run("linear_cross_entropy_deep", f, x, numbers((5, 2, 3), 1), numbers((5, 2), 2))
    parts = numbers((4, 5), 3).softmax(1)
    run("linear_cross_entropy_parts", lambda x, w: F.linear_cross_entropy(x, w, parts), x, numbers((5, 3), 1))
    f = lambda x, w: F.linear_cross_entropy(x, w, torch.tensor(3))
    run("linear_cross_entropy_one", f, numbers((3,), 0), numbers((5, 3), 1))


def multi_head_attention():
    f, both = F.multi_head_attention_forward, lambda pair: torch.cat([x.flatten() for x in pair])
    causal = lambda l, s: torch.full((l, s), -torch.inf, dtype=torch.float64).triu(1)
    all = lambda *shapes: [numbers(shape, k) for k, shape in enumerate(shapes)]
    packed = lambda q, k, w, b, bk, bv, o, ob, mask: both(
        f(q, k, k, 4, 2, w, b, bk, bv, True, 0.0, o, ob, key_padding_mask=mask, attn_mask=causal(3, 5)))
    bias = [(12,), (1, 1, 4), (1, 1, 4)]
    run("mha_packed", packed, *all((3, 2, 4), (5, 2, 4), (12, 4), *bias, (4, 4), (4,), (2, 5)))
    separate = lambda q, k, v, a, b, c, bias, o, mask: both(
        f(q, k, v, 4, 2, None, bias, None, None, False, 0.0, o, None, attn_mask=mask, use_separate_proj_weight=True,
          q_proj_weight=a, k_proj_weight=b, v_proj_weight=c, average_attn_weights=False))
    weights = [(4, 4), (4, 3), (4, 2), (12,), (4, 4)]
    run("mha_separate", separate, *all((3, 2, 4), (5, 2, 3), (5, 2, 2), *weights, (4, 3, 5)))
    hint = lambda q, w, o: f(
        q, q, q, 4, 2, w, None, None, None, False, 0.0, o, None, need_weights=False, attn_mask=causal(3, 3),
        is_causal=True)[0]
    run("mha_causal", hint, *all((3, 2, 4), (12, 4), (4, 4)))
    static = lambda q, w, k, v, o: f(
        q, q, q, 4, 2, w, None, None, None, True, 0.0, o, None, need_weights=False, static_k=k, static_v=v)[0]
    run("mha_static", static, *all((3, 2, 4), (12, 4), (4, 5, 2), (4, 5, 2), (5, 4)))
    static_k = lambda q, w, k, o: both(
        f(q, q, q, 4, 2, w, None, None, None, True, 0.0, o, None, static_k=k, average_attn_weights=False))
    run("mha_static_k", static_k, *all((3, 4), (12, 4), (2, 3, 2), (4, 4)))

    rows = lambda q, k, w, bk, bv, o: both(
        f(q, k, k, 4, 2, w, None, bk, bv, True, 0.0, o, None, average_attn_weights=False))
    run("mha_rows", rows, *all((3, 2, 4), (5, 2, 4), (12, 4), (2, 1, 4), (2, 1, 4), (4, 4)))

def grouped_mm():
    def check(name, ends, *shapes):
        offs = None if ends is None else torch.tensor(ends, dtype=torch.int32)
        f = lambda a, b: F.grouped_mm(a.float(), b.float(), offs=offs).double()
        run(f"grouped_mm_{name}", f, *[numbers(shape, k) for k, shape in enumerate(shapes)])

    check("rows", [2, 2, 6], (6, 4), (3, 4, 4))
    check("columns", [3, 8], (2, 3, 4), (4, 8))
    check("inner", [3, 3, 8], (3, 8), (8, 4))
    check("batches", None, (2, 3, 4), (2, 4, 4))


def fusing():
    joined = lambda pair: torch.cat([of.detach().flatten() for of in pair])
    var = lambda of, k: numbers(of, k, lambda x: torch.sin(x) + 1.5)
    plain = lambda w, b, m, v, g, s: joined(fuse_conv_bn_weights(w, b, m, v, 0.1, g, s))
    of = lambda n: (numbers((n,), 1), numbers((n,), 2), var((n,), 3), numbers((n,), 4), numbers((n,), 5))
    run("fuse_conv_bn_weights", plain, numbers((3, 2, 2), 0), *of(3))
    turned = lambda w, m, v: joined(fuse_conv_bn_weights(w, None, m, v, 0.1, None, None, transpose=True))
    run("fuse_conv_bn_weights_transposed", turned, numbers((3, 2, 2), 0), numbers((2,), 1), var((2,), 2))
    linear = lambda w, b, m, v, g, s: joined(fuse_linear_bn_weights(w, b, m, v, 0.1, g, s))
    run("fuse_linear_bn_weights", linear, numbers((3, 4), 0), *of(3))


def sequences():
    f = lambda x: torch.cat(unpad_sequence(x, torch.tensor([2, 3, 1]), batch_first=True))
    run("unpad_sequence", f, numbers((3, 3, 2), 0))


def main():
    print(f"torch {torch.__version__}")
    grid_sample()
    affine_grid()
    distances()
    convolution()
    linear_cross_entropy()
    multi_head_attention()
    grouped_mm()
    fusing()
    sequences()


if __name__ == "__main__":
    main()
