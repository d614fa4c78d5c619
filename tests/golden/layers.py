"""Writes layers.txt: what torch's layers give and how they are differentiated.

    python tests/golden/layers.py > tests/golden/layers.txt

Element i of the input is sin(0.7 i), of parameter k sin(0.9 i + k + 1) / 2, of the gradient of the output
cos(1.3 i). A line is the layer's name, what the numbers are, and the numbers: everything in f64.
"""

import torch
from torch import nn

LAYERS = [
    ("batch_norm_1d", nn.BatchNorm1d(3), [4, 3]),
    ("batch_norm_2d_average", nn.BatchNorm2d(2, momentum=None), [3, 2, 2, 3]),
    ("batch_norm_3d_eval", nn.BatchNorm3d(2, eps=0.1).eval(), [2, 2, 1, 2, 2]),
    ("instance_norm_1d", nn.InstanceNorm1d(2, affine=True, track_running_stats=True), [3, 2, 4]),
    ("layer_norm", nn.LayerNorm([2, 3]), [2, 2, 3]),
    ("group_norm", nn.GroupNorm(2, 4), [2, 4, 3]),
    ("rms_norm", nn.RMSNorm([4]), [3, 4]),
    ("conv_1d_same_reflect", nn.Conv1d(2, 3, 2, padding="same", padding_mode="reflect"), [2, 2, 5]),
    ("conv_2d", nn.Conv2d(4, 2, (2, 3), stride=2, padding=(1, 2), groups=2), [2, 4, 4, 5]),
    ("conv_3d", nn.Conv3d(1, 2, 2, bias=False), [1, 1, 2, 3, 3]),
    ("conv_transpose_2d", nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1, output_padding=1), [1, 2, 2, 3]),
    ("prelu", nn.PReLU(2), [3, 2, 2]),
    ("celu", nn.CELU(2.0), [7]),
    ("mish", nn.Mish(), [7]),
    ("glu", nn.GLU(), [2, 4]),
]


def show(name, what, numbers):
    print(name, what, " ".join(repr(x) for x in numbers.detach().double().flatten().tolist()))


def main():
    print(f"torch {torch.__version__}")
    for name, layer, shape in LAYERS:
        layer.double()
        of = lambda shape, f: f(torch.arange(torch.Size(shape).numel(), dtype=torch.float64)).reshape(shape)
        with torch.no_grad():
            for k, parameter in enumerate(layer.parameters()):
                parameter.copy_(of(parameter.shape, lambda i: torch.sin(0.9 * i + k + 1) / 2))
        x = of(shape, lambda i: torch.sin(0.7 * i)).requires_grad_()
        y = layer(x)
        y.backward(of(y.shape, lambda i: torch.cos(1.3 * i)))
        show(name, "output", y)
        show(name, "grad_input", x.grad)
        for parameter, value in layer.named_parameters():
            show(name, f"grad/{parameter}", value.grad)
        for buffer, value in layer.named_buffers():
            show(name, f"buffer/{buffer}", value)


if __name__ == "__main__":
    main()
