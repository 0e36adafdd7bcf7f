"""A straightforward implementation of GraDIRN: the reference of the tests and of the benchmark.

The similarity gradient comes from ``torch.autograd.grad`` inside the forward pass, through a sampler that gathers one
corner after the other. Only the order of the parameters is the same as in ``scripts.networks``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["ReferenceGraDIRN", "reference_energy", "reference_warp"]


def reference_warp(image: torch.Tensor, ddf: torch.Tensor) -> torch.Tensor:
    """Sample an image (B, C, *spatial) at x + ddf(x) by multilinear interpolation with border padding."""
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
    """Compute D of each sample from its formula, shape (B,); NCC is multiplied by the number of voxels."""
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


class ReferenceBlock(nn.Module):
    """One block with its tau and its regularizer r."""

    def __init__(self, spatial_dims: int, similarity: str, initial_step_size: float) -> None:
        super().__init__()
        self.similarity = similarity
        self.tau = nn.Parameter(torch.tensor(initial_step_size))
        conv = nn.Conv2d if spatial_dims == 2 else nn.Conv3d
        layers: list[nn.Module] = []
        for channels in (spatial_dims + 2, 32, 32, 32):
            layers += [conv(channels, 32, 3, padding=1), nn.LeakyReLU(0.2)]
        self.regularizer = nn.Sequential(*layers, conv(32, spatial_dims, 3, padding=1))

    def forward(self, ddf: torch.Tensor, fixed: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
        training = torch.is_grad_enabled()
        with torch.enable_grad():
            variable = ddf if ddf.requires_grad else ddf.detach().requires_grad_()
            warped = reference_warp(moving, variable)
            energy = reference_energy(self.similarity, fixed, warped).sum()
            (gradient,) = torch.autograd.grad(energy, variable, create_graph=training)
        if not training:
            warped, gradient = warped.detach(), gradient.detach()
        return ddf - 10 * self.tau * gradient - self.regularizer(torch.cat([ddf, fixed, warped], 1))


class ReferenceGraDIRN(nn.Module):
    """The published network (regularizer input ``warped``); its parameters have the same order as ``GraDIRN``'s."""

    def __init__(self, spatial_dims: int, num_repeats: Sequence[int] = (3, 3, 3), similarity: str = "ssd") -> None:
        super().__init__()
        self.spatial_dims, self.num_repeats = spatial_dims, num_repeats
        tau = 0.5 / (sum(num_repeats) + 1)
        self.blocks = nn.ModuleList(ReferenceBlock(spatial_dims, similarity, tau) for _ in num_repeats)

    def copy_parameters(self, network: nn.Module) -> None:
        """Copy the parameters of a ``GraDIRN`` with the same configuration."""
        for parameter, source in zip(self.parameters(), network.parameters(), strict=True):
            parameter.data.copy_(source.data)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        mode = "bilinear" if self.spatial_dims == 2 else "trilinear"
        ddf = image.new_zeros(image.shape[0], self.spatial_dims, *image.shape[2:])
        for level, (block, repeats) in enumerate(zip(self.blocks, self.num_repeats)):
            factor = 2 ** (len(self.blocks) - 1 - level)
            size = [-(-n // factor) for n in image.shape[2:]]
            pair = F.interpolate(image, size=size, mode=mode, align_corners=True)
            moving, fixed = pair[:, :1], pair[:, 1:]
            ddf = 2 * F.interpolate(ddf, size=size, mode=mode, align_corners=True)
            for _ in range(repeats):
                ddf = block(ddf, fixed, moving)
        return ddf
