"""The same in PyTorch, timed: what benchmarks.speed starts. Needs PyTorch and NumPy alone.

Written for this comparison as someone who knows PyTorch would: everything on the device, the
joint distribution as one matrix product, grid_sample for the warps, separate passes where the
statistics are apart, a foreach or fused Adam.
"""

import argparse
import contextlib
import functools
import itertools
import json

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.worker import (
    Case,
    Settings,
    probability_maps,
    serve,
    training_slices,
    volumes,
)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("settings")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--amp", action="store_true", help="bfloat16 activations")
    parser.add_argument("--steps-per-dispatch", type=int, default=1, help="steps between waits")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    settings = Settings(**json.loads(options.settings))
    serve(functools.partial(make_case, settings, options), device_memory=_device_memory)


class UNet(nn.Module):
    """The U-Net of mijax.models.UNet, of two or three axes."""

    def __init__(self, classes, widths, dims=2):
        super().__init__()
        self.pool = F.max_pool2d if dims == 2 else F.max_pool3d
        pairs = list(itertools.pairwise(widths))
        self.down = nn.ModuleList(
            nn.Sequential(_block(a, b, dims), _block(b, b, dims))
            for a, b in [(1, widths[0]), *pairs]
        )
        self.up = nn.ModuleList(_block(b, a, dims) for a, b in reversed(pairs))
        self.join = nn.ModuleList(
            nn.Sequential(_block(2 * a, a, dims), _block(a, a, dims)) for a, _ in reversed(pairs)
        )
        self.classifier = (nn.Conv2d if dims == 2 else nn.Conv3d)(widths[0], classes, 1)

    def forward(self, x):
        skips = []
        for level, down in enumerate(self.down):
            x = down(self.pool(x, 2) if level else x)
            skips.append(x)
        for up, join, skip in zip(self.up, self.join, reversed(skips[:-1]), strict=True):
            x = join(torch.cat([skip, up(F.interpolate(x, scale_factor=2))], 1))
        return self.classifier(x)


def _block(a, b, dims):
    conv, norm = ((nn.Conv2d, nn.BatchNorm2d), (nn.Conv3d, nn.BatchNorm3d))[dims - 2]
    return nn.Sequential(conv(a, b, 3, padding=1, bias=False), norm(b), nn.ReLU(inplace=True))


def make_case(settings, options, name):
    """The ``Case`` of that name."""
    p, q, matrix = (torch.as_tensor(x, device=DEVICE) for x in probability_maps(settings))
    p, q = p.permute(0, 3, 1, 2).contiguous(), q.permute(0, 3, 1, 2).contiguous()
    if name == "mutual information":
        return _gradient(options, lambda p, q: mutual_information(p, q, settings.radius), p, q)
    if name == "KL consistency":
        return _gradient(options, lambda p, q: kl(p.log(), q), p, q)
    if name == "warp of probabilities":
        size = settings.size
        return _gradient(
            options,
            lambda p, q: (warp(p, sampling_grid(matrix, size, size)) * q).mean(),
            p,
            q,
        )
    if name == "augmentation":
        image, label = (x[: settings.labelled] for x in slices(settings)[:2])
        function = _compiled(options, functools.partial(augment, settings, image, label))
        return Case(lambda: _done(function()))
    if name == "step":
        return _step(settings, options, shared=False)
    if name == "step, shared statistics":
        return _step(settings, options, shared=True)
    if name == "step, supervised":
        return _step(settings, options, shared=None)
    if name.startswith("volumes"):
        return _of_volumes(settings, options, name)
    raise ValueError(f"no case {name!r}")


def _step(settings, options, *, shared):
    """A train step; ``shared`` statistics in one pass, apart in three, or None: supervised."""
    layout = torch.channels_last if options.channels_last else torch.contiguous_format
    network = UNet(settings.classes, settings.widths).to(DEVICE, memory_format=layout)
    cuda = {"fused": True} if DEVICE == "cuda" else {}
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, **cuda)
    image, label, unlabelled = slices(settings)
    amp = torch.autocast(DEVICE, torch.bfloat16) if options.amp else contextlib.nullcontext()

    def forward(images):
        with amp:
            return network(images.contiguous(memory_format=layout)).float()

    def loss(images, targets, plain, view, inverse):
        if shared is None:
            return F.cross_entropy(forward(images), targets)
        size = settings.size
        to, back = (sampling_grid(m, size, size) for m in (view, inverse))
        moved = warp(plain, to)
        if shared:
            parts = forward(torch.cat([images, plain, moved])).split(
                [len(images), len(plain), len(moved)]
            )
        else:
            parts = [forward(x) for x in (images, plain, moved)]
        labelled, straight, turned = parts
        restored = warp(turned.softmax(1), back)
        with torch.no_grad():
            mask = warp(warp(torch.ones_like(plain), to), back) > 1 - 1e-3
        p = straight.softmax(1)
        information = mutual_information(p * mask, restored * mask, settings.radius)
        distance = kl(straight.log_softmax(1), restored, mask[:, 0])
        return F.cross_entropy(labelled, targets) + 0.1 * (distance - information)

    loss = _compiled(options, loss)

    def step():
        rows = torch.randint(len(image), (settings.labelled,), device=DEVICE)
        images, targets = augment(settings, image[rows], label[rows])
        plain = view = inverse = None
        if shared is not None:
            rows = torch.randint(len(unlabelled), (settings.unlabelled,), device=DEVICE)
            plain, _ = augment(settings, unlabelled[rows], None)
            view = random_affine(len(plain), 30.0, settings.shear, settings.scale, flip=True)
            inverse = torch.linalg.inv(view)
        value = loss(images, targets, plain, view, inverse)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()
        return value

    def run():
        for _ in range(options.steps_per_dispatch):
            value = step()
        return value.item()

    return Case(run, options.steps_per_dispatch)


def _of_volumes(settings, options, name):
    """The gradient of a network in all its weights, or its prediction, of two volumes."""
    layout = torch.channels_last_3d if options.channels_last else torch.contiguous_format
    network = UNet(settings.classes, settings.widths, dims=3).to(DEVICE, memory_format=layout)
    images, labels = (torch.as_tensor(x, device=DEVICE) for x in volumes(settings))
    images = images.movedim(-1, 1).contiguous(memory_format=layout)
    amp = torch.autocast(DEVICE, torch.bfloat16) if options.amp else contextlib.nullcontext()
    forward = _compiled(options, network)

    def predict():
        with amp:
            forward(images).argmax(1)
        return _done(None)

    def gradient():
        with amp:
            logits = forward(images).float()
        network.zero_grad(set_to_none=True)
        F.cross_entropy(logits, labels.long()).backward()
        return _done(None)

    if name == "volumes, gradient":
        return Case(gradient)
    network.eval()
    return Case(torch.inference_mode()(predict))


def mutual_information(p, q, radius):
    """Of (b, k, h, w) maps at all displacements of a window, symmetrised, as in mijax."""
    _, k, h, w = p.shape
    window = 2 * radius + 1
    p = F.pad(p, (0, 0, radius, radius))
    q = F.pad(q, (radius, radius))
    rows = torch.cat([p[:, :, 2 * radius - s : 2 * radius - s + h] for s in range(window)], 1)
    columns = torch.cat([q[:, :, :, s : s + w] for s in range(window)], 1)
    joint = torch.einsum("bihw,bjhw->ij", rows, columns)
    joint = joint.reshape(window, k, window, k).transpose(1, 2)
    joint = joint / joint.sum((-1, -2), keepdim=True)
    joint = (joint + joint.transpose(-1, -2)) / 2
    logs = [x.clamp_min(1e-30).log() for x in (joint, joint.sum(-1, True), joint.sum(-2, True))]
    return (joint * (logs[0] - logs[1] - logs[2])).sum((-1, -2)).mean()


def kl(log_p, q, mask=None):
    """KL(p ‖ q), mean over the pixels of the mask (b, h, w)."""
    distance = (log_p.exp() * (log_p - q.clamp_min(1e-30).log())).sum(1)
    return distance.mean() if mask is None else (distance * mask).sum() / mask.sum().clamp_min(1)


def augment(settings, image, label):
    """Random rotation and crop, as one warp."""
    count, _, height, _ = image.shape
    turn = random_affine(count, settings.rotation, 0.0, (1.0, 1.0), flip=False)
    slack = height - settings.size
    place = torch.eye(3, device=DEVICE).repeat(count, 1, 1)
    place[:, :2, 2] = torch.randint(slack + 1, (count, 2), device=DEVICE) - slack / 2
    grid = sampling_grid(place @ turn, height, settings.size)
    if label is not None:
        label = F.grid_sample(label, grid, mode="nearest", align_corners=True)[:, 0].long()
    return warp(image, grid), label


def random_affine(count, rotation, shear, scale, *, flip):
    """(count, 3, 3), output to input pixels from the image centres: R · H · S · F."""

    def uniform(low, high):
        return torch.empty(count, device=DEVICE).uniform_(low, high)

    angle, slope = (
        torch.deg2rad(uniform(-rotation, rotation)),
        torch.deg2rad(uniform(-shear, shear)),
    )
    zoom = uniform(*scale)
    sign = (torch.randint(2, (2, count), device=DEVICE) * 2 - 1) if flip else (1, 1)
    c, s, t = angle.cos(), angle.sin(), slope.tan()
    matrix = torch.zeros(count, 3, 3, device=DEVICE)
    matrix[:, 0, 0], matrix[:, 0, 1] = c * zoom * sign[0], (c * t - s) * zoom * sign[1]
    matrix[:, 1, 0], matrix[:, 1, 1] = s * zoom * sign[0], (s * t + c) * zoom * sign[1]
    matrix[:, 2, 2] = 1
    return matrix


def sampling_grid(matrix, source, target):
    """The grid of grid_sample for matrices that map pixels (row, column) from the centres."""
    half = torch.arange(target, device=DEVICE) - (target - 1) / 2
    rows, columns = torch.meshgrid(half, half, indexing="ij")
    points = torch.stack([rows, columns, torch.ones_like(rows)], -1)
    moved = torch.einsum("bij,hwj->bhwi", matrix[:, :2], points) * (2 / (source - 1))
    return moved.flip(-1)


def warp(images, grid):
    """Bilinear resampling, zero outside the frame."""
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=True)


def slices(settings):
    """The training slices on the device, channels first."""
    image, label, unlabelled = (
        torch.as_tensor(x, device=DEVICE) for x in training_slices(settings)
    )
    return image.movedim(-1, 1), label[:, None].float(), unlabelled.movedim(-1, 1)


def _gradient(options, function, *arguments):
    arguments = [x.requires_grad_() for x in arguments]
    function = _compiled(options, function)

    def run():
        value = function(*arguments)
        torch.autograd.grad(value, arguments)
        return _done(value.item())

    return Case(run)


def _compiled(options, function):
    return torch.compile(function) if options.compile else function


def _done(value):
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return value if isinstance(value, float) else None


def _device_memory():
    return torch.cuda.max_memory_allocated() if DEVICE == "cuda" else None


if __name__ == "__main__":
    main()
