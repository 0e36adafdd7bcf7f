"""The training set. Its samples depend only on seed, epoch and index, so that a training can be continued exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from monai.data import CacheDataset, DataLoader
from monai.transforms import Compose
from torch.utils.data import Dataset, DistributedSampler

from ..support.processes import rank_and_count

__all__ = ["EpochDataset", "seed_of", "training_loader"]


def seed_of(*numbers: int) -> int:
    """Return a seed that depends on all of these numbers, such as seed, epoch and index of a sample."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


class EpochDataset(Dataset):
    """Items with random variation, any number of them per epoch.

    The deterministic transforms are cached. The random transforms are seeded by (seed, epoch, index), and therefore
    depend neither on earlier samples nor on the number of workers or processes.

    Args:
        data: the items; their number does not change the length of an epoch.
        transform: deterministic transforms, followed by random ones.
        samples_per_epoch: length of an epoch.
        seed: seed of the random transforms.
        cache_rate: fraction of the items whose deterministic part is kept in memory.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Compose,
        samples_per_epoch: int,
        seed: int = 0,
        cache_rate: float = 1.0,
    ) -> None:
        self.items = CacheDataset(data, transform, cache_rate=cache_rate, progress=False)
        self.samples_per_epoch = samples_per_epoch
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return self.samples_per_epoch

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __getitem__(self, index: int) -> Any:
        self.items.transform.set_random_state(seed=seed_of(self.seed, self.epoch, index))
        return self.items[index % len(self.items)]


def training_loader(dataset: EpochDataset, batch_size: int, num_workers: int = 0) -> DataLoader:
    """Load batches in an order that depends on the data set's seed and epoch, and share them among all processes.

    N processes together see the same batches as one process with N times the batch size.
    """
    rank, count = rank_and_count()
    sampler: DistributedSampler = DistributedSampler(
        dataset, count, rank, shuffle=True, seed=dataset.seed, drop_last=True
    )
    return DataLoader(dataset, batch_size=batch_size, sampler=sampler, num_workers=num_workers, drop_last=True)
