"""The training set: samples that depend on seed, epoch and index only, so that a training can be continued exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from monai.data import CacheDataset, DataLoader
from monai.transforms import Compose
from torch.utils.data import Dataset, DistributedSampler

from ..support.processes import rank_and_count

__all__ = ["EpochDataset", "training_loader"]


class EpochDataset(Dataset):
    """Items in any number of random variants an epoch.

    The deterministic transforms are cached. The random ones draw from (seed, epoch, index): not from what was drawn
    before, nor from how many workers or processes share the work.

    Args:
        data: the items; few items make an epoch as long as many.
        transform: deterministic transforms, then random ones.
        samples_per_epoch: length of an epoch.
        seed: of the random transforms.
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
        seed = np.random.SeedSequence((self.seed, self.epoch, index)).generate_state(1)[0]
        self.items.transform.set_random_state(seed=int(seed))
        return self.items[index % len(self.items)]


def training_loader(dataset: EpochDataset, batch_size: int, num_workers: int = 0) -> DataLoader:
    """Batches in an order that depends on the data set's seed and epoch, dealt out to the processes of a training.

    With N processes, the batches of all of them together are those of one process with N times the batch size.
    """
    rank, count = rank_and_count()
    sampler: DistributedSampler = DistributedSampler(
        dataset, count, rank, shuffle=True, seed=dataset.seed, drop_last=True
    )
    return DataLoader(dataset, batch_size=batch_size, sampler=sampler, num_workers=num_workers, drop_last=True)
