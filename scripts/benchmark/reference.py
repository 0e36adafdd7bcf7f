"""GraDIRN written the straightforward way: the oracle of the tests and the yardstick of the benchmark.

The similarity gradient comes from ``torch.autograd.grad`` inside the forward pass, through a sampler that gathers one
corner after the other. It shares nothing with ``scripts.networks`` but the order of the parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["ReferenceGraDIRN", "reference_energy", "reference_warp"]


def reference_warp(image: torch.Tensor, ddf: torch.Tensor) -> torch.Tensor:
    """Multilinear interpolation with border padding of (B, C, *spatial) at x + ddf(x)."""
    size = image.shape[2:]
    axes = [torch.arange(n, dtype=ddf.dtype, device=ddf.device) for n in size]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij")) + ddf
    lower, fraction = [], []
    for axis, n in enumerate(size):
        point = points[:, axis].clamp(0, n - 1)
        lower.append(point.detach().floor().clamp(max=n - 2).long())
        fraction.append(point - lower[-1])
    value = torch.zeros_like(image)
    for bits in product((0, 1), repeat=len(size)):
        index = torch.zeros_like(lower[0])
        weight = torch.ones_like(fraction[0])
        for axis, bit in enumerate(bits):
            index = index * size[axis] + lower[axis] + bit
            weight = weight * (fraction[axis] if bit else 1 - fraction[axis])
        index = index.flatten(1).unsqueeze(1).expand(-1, image.shape[1], -1)
        value = value + image.flatten(2).gather(2, index).view(image.shape) * weight.unsqueeze(1)
    return value


def reference_energy(name: str, fixed: torch.Tensor, warped: torch.Tensor, window_size: int = 9) -> torch.Tensor:
    """The energies of DESIGN section 1, per sample, shape (B,); NCC is multiplied by the number of voxels."""
    if name == "ssd":
        return (fixed - warped).pow(2).flatten(1).sum(1)
    if name == "ncc":
        f = fixed.flatten(1) - fixed.flatten(1).mean(1, keepdim=True)
        w = warped.flatten(1) - warped.flatten(1).mean(1, keepdim=True)
        variances = f.pow(2).mean(1) * w.pow(2).mean(1)
        return -f.shape[1] * (f * w).mean(1).pow(2) / (variances + 1e-5)
    kernel = torch.ones(1, 1, *[window_size] * (fixed.ndim - 2), dtype=fixed.dtype, device=fixed.device)
    convolve = F.conv2d if fixed.ndim == 4 else F.conv3d

    def mean(image: torch.Tensor) -> torch.Tensor:
        padding = window_size // 2
        return convolve(image, kernel, padding=padding) / convolve(torch.ones_like(image), kernel, padding=padding)

    covariance = mean(fixed * warped) - mean(fixed) * mean(warped)
    variances = (mean(fixed**2) - mean(fixed) ** 2) * (mean(warped**2) - mean(warped) ** 2)
    return -(covariance**2 / (variances + 1e-5)).flatten(1).sum(1)


class ReferenceGraDIRN(nn.Module):
    """The published network (regularizer input ``warped``); arguments as of ``scripts.networks.GraDIRN``."""

    def __init__(
        self,
        spatial_dims: int,
        num_blocks: Sequence[int] = (1, 1, 1),
        num_repeats: Sequence[int] = (3, 3, 3),
        similarity: str = "ssd",
    ) -> None:
        super().__init__()
        self.spatial_dims, self.num_repeats, self.similarity = spatial_dims, num_repeats, similarity
        conv = nn.Conv2d if spatial_dims == 2 else nn.Conv3d
        steps = sum(b * r for b, r in zip(num_blocks, num_repeats))
        channels = [spatial_dims + 2, 32, 32, 32, 32]
        self.step_sizes, self.regularizers = nn.ModuleList(), nn.ModuleList()
        for count in num_blocks:
            self.step_sizes.append(nn.ParameterList(torch.tensor(0.5 / (steps + 1)) for _ in range(count)))
            self.regularizers.append(nn.ModuleList())
            for _ in range(count):
                layers: list[nn.Module] = []
                for before, after in zip(channels, channels[1:]):
                    layers += [conv(before, after, 3, padding=1), nn.LeakyReLU(0.2)]
                layers.append(conv(32, spatial_dims, 3, padding=1))
                self.regularizers[-1].append(nn.Sequential(*layers))

    def copy_parameters(self, network: nn.Module) -> None:
        """Take the parameters of a ``GraDIRN`` of the same configuration, whose blocks hold tau first, then r."""
        source = iter(network.parameters())
        for step_sizes, regularizers in zip(self.step_sizes, self.regularizers):
            for tau, regularizer in zip(step_sizes, regularizers):
                for parameter in (tau, *regularizer.parameters()):
                    parameter.data.copy_(next(source).data)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        mode = "bilinear" if self.spatial_dims == 2 else "trilinear"
        ddf = None
        for level, (step_sizes, regularizers) in enumerate(zip(self.step_sizes, self.regularizers)):
            factor = 2 ** (len(self.regularizers) - 1 - level)
            size = [-(-n // factor) for n in image.shape[2:]]
            pair = F.interpolate(image, size=size, mode=mode, align_corners=True)
            moving, fixed = pair[:, :1], pair[:, 1:]
            if ddf is None:
                ddf = image.new_zeros(image.shape[0], self.spatial_dims, *size)
            else:
                ddf = 2 * F.interpolate(ddf, size=size, mode=mode, align_corners=True)
            for tau, regularizer in zip(step_sizes, regularizers):
                for _ in range(self.num_repeats[level]):
                    ddf = self._step(tau, regularizer, ddf, fixed, moving)
        assert ddf is not None
        return ddf

    def _step(
        self, tau: torch.Tensor, regularizer: nn.Module, ddf: torch.Tensor, fixed: torch.Tensor, moving: torch.Tensor
    ) -> torch.Tensor:
        training = torch.is_grad_enabled()
        with torch.enable_grad():
            variable = ddf if ddf.requires_grad else ddf.detach().requires_grad_()
            warped = reference_warp(moving, variable)
            energy = reference_energy(self.similarity, fixed, warped).sum()
            (gradient,) = torch.autograd.grad(energy, variable, create_graph=training)
        if not training:
            warped, gradient = warped.detach(), gradient.detach()
        return ddf - 10 * tau * gradient - regularizer(torch.cat([ddf, fixed, warped], 1))
