"""Trains on packed data for a number of seconds, on one GPU or on the CPU; the next call continues the training.

    python -m scripts.tools.gpu.train TASK --pack FILE.npz --seconds 300 --output_dir DIR [--override FILE.yaml]

Network and loss are those of ``train.yaml`` with the overlay of the task. Each pair is registered in both directions,
and a term of the loss makes them inverse to each other. The first part of a training only trains the features, as
segmentations. ``model.pt`` has a moving average of the weights, ``checkpoint.pt`` the state that a training continues.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from torch import nn

from ...deformation.jacobian import jacobian_determinant
from ...networks import DeepSupervision
from ...networks.kernels.sampling import warp
from ...results.measures import common_classes, dice_per_class
from ...support.files import replace_file
from ...training.dataset import seed_of
from .samples import Sampler
from .tasks import read_config, task_names

__all__ = ["GpuTraining", "main"]

WARM_UP = 0.03  # fraction of the time
AVERAGE = 0.998
CHECKPOINT_SECONDS = 60
VALIDATION_PAIRS = 16
MAX_SKIPPED = 20  # steps without a finite gradient
SUBSETS = ("train", "validation")


class GpuTraining:
    """A training whose data, samples and network stay on one device.

    Args:
        config: what :func:`~scripts.tools.gpu.tasks.read_config` gives.
        arrays: the arrays of the packed file.
        output_dir: the folder for checkpoints.
        device: cuda or cpu.
        seed: seed of the samples.
    """

    def __init__(
        self,
        config: ConfigParser,
        arrays: Mapping[str, torch.Tensor],
        output_dir: Path,
        device: torch.device,
        seed: int = 0,
    ) -> None:
        self.config, self.output_dir, self.device, self.seed = config, output_dir, device, seed
        torch.manual_seed(seed)
        self.network: nn.Module = config.get_parsed_content("network").to(device)
        self.loss = config.get_parsed_content("train#loss")
        usual = {key: config.get_parsed_content(key) for key in ("batch_size", "learning_rate", "gradient_norm")}
        self.options: dict[str, Any] = {**usual, **config.get_parsed_content("gpu")}
        self.view = DeepSupervision(self.network, every_step=self.loss.step_decay > 0)
        self.average = copy.deepcopy(self.network).eval()
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1.0)
        self.samplers = {subset: self._sampler(arrays, subset) for subset in SUBSETS}
        self.graphs: dict[Callable[..., torch.Tensor], _Captured] = {}
        self.iteration, self.spent, self.skipped, self.features_only = 0, 0.0, 0, False
        self._resume()

    def _sampler(self, arrays: Mapping[str, torch.Tensor], subset: str) -> Sampler:
        own = {key.removeprefix(f"{subset}_"): value for key, value in arrays.items() if key.startswith(subset)}
        crop = self.config["crop_size"][: self.config["spatial_dims"]]
        return Sampler({**own, "label_ids": arrays["label_ids"]}, self.options["variation"], crop, self.device)

    def run(self, seconds: float) -> None:
        """Train for a number of seconds, with one cycle of the learning rate."""
        begin = written = time.monotonic()
        while (elapsed := time.monotonic() - begin) < seconds:
            terms = self._step(elapsed / seconds)
            if self.iteration % 50 == 0:
                print(
                    f"{self.iteration} {elapsed:.0f} s " + " ".join(f"{k} {v:.4f}" for k, v in terms.items()),
                    flush=True,
                )
            if time.monotonic() - written > CHECKPOINT_SECONDS:
                written = time.monotonic()
                self._save(self.spent + written - begin)
        self.spent += time.monotonic() - begin
        self._save(self.spent)

    def _step(self, progress: float) -> dict[str, float]:
        features_only = self.options["features_first"] > progress and not self.resumed
        if self.features_only and not features_only:  # Adam has seen no gradient of the other parameters so far
            self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1.0)
        self.features_only = features_only
        rate = min(1.0, progress / WARM_UP) * 0.5 * (1 + math.cos(math.pi * progress))
        for group in self.optimizer.param_groups:
            group["lr"] = self.options["learning_rate"] * max(rate, 0.01)
        generator = torch.Generator().manual_seed(seed_of(self.seed, self.iteration))
        batch = self.samplers["train"].draw(generator, self.options["batch_size"])
        both = {
            "image": torch.cat([batch["image"], batch["image"].flip(1)]),
            "label_moving": torch.cat([batch["label_moving"], batch["label_fixed"]]),
            "label_fixed": torch.cat([batch["label_fixed"], batch["label_moving"]]),
        }
        loss = self._differentiate(self._feature_loss if features_only else self._registration_loss, both)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.options["gradient_norm"])
        self.skipped = 0 if torch.isfinite(norm) else self.skipped + 1
        if self.skipped > MAX_SKIPPED:
            raise FloatingPointError(f"{self.skipped} steps in a row had gradients that are not finite")
        self.iteration += 1
        if self.skipped:
            return {}
        self.optimizer.step()
        decay = min(AVERAGE, (1 + self.iteration) / (10 + self.iteration))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.network.parameters()), 1 - decay)
        if self.iteration % 50:
            return {}
        terms = {} if features_only else {k: v.item() for k, v in self.loss.terms.items()}
        return {"loss": loss.item(), "norm": norm.item(), **terms}

    def _differentiate(self, loss: Callable[..., torch.Tensor], batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Compute the loss of a batch and all gradients; on a GPU, as one CUDA graph of about 10^4 kernels."""
        if self.device.type != "cuda" or not self.options["capture"]:
            self.optimizer.zero_grad(set_to_none=True)
            value = loss(batch)
            value.backward()
            return value
        if loss not in self.graphs:
            self.graphs = {loss: _Captured(loss, batch, list(self.network.parameters()))}
        return self.graphs[loss](batch)

    def _feature_loss(self, both: dict[str, torch.Tensor]) -> torch.Tensor:
        half = len(both["image"]) // 2
        batch = {key: value[:half] for key, value in both.items()}
        with self._autocast():
            moving, fixed = self.network.with_features(batch["image"])  # type: ignore[operator]
        return self.loss.feature_loss((moving[:, 1:].float(), fixed[:, 1:].float()), batch)

    def _registration_loss(self, both: dict[str, torch.Tensor]) -> torch.Tensor:
        with self._autocast():
            result = self.view(both["image"])
        loss = self.loss(result, both)
        forward, backward = result["ddfs"][-1].chunk(2)
        there_and_back = [forward + warp(backward, forward), backward + warp(forward, backward)]
        inconsistency = torch.cat(there_and_back).square().sum(1).mean()
        self.loss.terms["inconsistency"] = inconsistency.detach()
        return loss + self.options["consistency_weight"] * inconsistency

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Measure the averaged weights: Dice before and after, folds in percent, and how far there and back leads."""
        sampler = self.samplers["validation"]
        items = torch.arange(len(sampler.label))
        others = items if sampler.label.shape[1] == 2 else items.roll(-1)
        pairs = [sampler.plain(items[n : n + 1], others[n : n + 1]) for n in range(min(VALIDATION_PAIRS, len(items)))]
        found = [measures for measures in map(self._measure, pairs) if measures]
        return {name: float(np.mean([measures[name] for measures in found])) for name in found[0]} if found else {}

    def _measure(self, pair: dict[str, torch.Tensor]) -> dict[str, float]:
        """Measure one pair; nothing where its labels have no class of the loss in common."""
        fixed, moving = (pair[key][0, 0].cpu() for key in ("label_fixed", "label_moving"))
        classes = [c for c in common_classes(fixed, moving)[0] if c in self.loss.classes]
        if not classes:
            return {}
        with self._autocast():
            ddf = self.average(pair["image"])
        back = self.average(pair["image"].flip(1))
        # the class that has more than half of a voxel
        shares = torch.cat([warp((pair["label_moving"] == c).float(), ddf) for c in classes], 1)
        values = torch.tensor(classes, device=self.device).view(-1, *[1] * fixed.ndim)
        warped = ((shares[0] > 0.5) * values).sum(0).cpu()
        return {
            "before": dice_per_class(fixed, moving, classes)["mean"],
            "after": dice_per_class(fixed, warped, classes)["mean"],
            "folds": (jacobian_determinant(ddf) <= 0).float().mean().item() * 100,
            "there_and_back": (ddf + warp(back, ddf)).square().sum(1).sqrt().mean().item(),
        }

    def _resume(self) -> None:
        path = self.output_dir / "checkpoint.pt"
        self.resumed = path.is_file()
        if not self.resumed:
            return
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.iteration, self.spent = state["iteration"], state["spent"]

    def _save(self, spent: float) -> None:
        # without Adam's moments, which the warm-up estimates again: a third of the size
        parts = {"network": self.network, "average": self.average}
        state = {name: {key: value.cpu() for key, value in part.state_dict().items()} for name, part in parts.items()}
        checkpoint = {**state, "iteration": self.iteration, "spent": spent}
        replace_file(self.output_dir / "checkpoint.pt", partial(torch.save, checkpoint))
        replace_file(self.output_dir / "model.pt", partial(torch.save, state["average"]))


class _Captured:
    """A loss and its gradients as a CUDA graph, which starts without the processor's 5 microseconds for each kernel.

    Args:
        loss: maps a batch to a number.
        batch: an example of a batch.
        parameters: the parameters that get gradients, at the same addresses each time.
    """

    def __init__(
        self, loss: Callable[..., torch.Tensor], batch: dict[str, torch.Tensor], parameters: list[nn.Parameter]
    ) -> None:
        self.batch = {key: value.clone() for key, value in batch.items()}
        self.parameters = parameters
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._differentiate(loss)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        with torch.cuda.graph(self.graph):
            self.loss = self._differentiate(loss)

    def _differentiate(self, loss: Callable[..., torch.Tensor]) -> torch.Tensor:
        for parameter in self.parameters:
            if parameter.grad is not None:
                parameter.grad.zero_()
        value = loss(self.batch)
        value.backward()
        return value.detach()

    def __call__(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        for key, value in batch.items():
            self.batch[key].copy_(value)
        self.graph.replay()
        return self.loss


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.tools.gpu.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("task", choices=task_names())
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--override", type=Path, nargs="*", default=[])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(arguments)
    with np.load(options.pack) as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files}
    config = read_config(options.task, options.override)
    training = GpuTraining(config, arrays, options.output_dir, torch.device(options.device))
    print(f"{options.task}: {sum(p.numel() for p in training.network.parameters())} parameters", flush=True)
    training.run(options.seconds)
    result = ", ".join(f"{name} {value:.4f}" for name, value in training.validate().items())
    print(f"{options.task}: {training.iteration} steps, {result}", flush=True)


if __name__ == "__main__":
    main()
