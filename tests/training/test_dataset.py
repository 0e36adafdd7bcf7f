"""Samples that depend on seed, epoch and index alone."""

import torch
from monai.transforms import Compose, RandomizableTransform, Transform

from scripts.training.augmentation import RandSwapd
from scripts.training.dataset import EpochDataset, training_loader


class Count(Transform):
    def __init__(self):
        self.calls = 0

    def __call__(self, data):
        self.calls += 1
        return data


class Draw(RandomizableTransform):
    def __call__(self, data):
        return {**data, "draw": int(self.R.randint(10**9))}


def draws(epoch, length=8, seed=0, order=None, items=3, cache_rate=1.0):
    count = Count()
    dataset = EpochDataset([{"item": i} for i in range(items)], Compose([count, Draw()]), length, seed, cache_rate)
    dataset.set_epoch(epoch)
    found = {index: dataset[index] for index in order or range(length)}
    return [found[index]["draw"] for index in range(length)], [found[index]["item"] for index in range(length)], count


def test_an_epoch_is_as_long_as_asked_and_uses_each_item():
    _, items, count = draws(epoch=1)
    assert items == [0, 1, 2, 0, 1, 2, 0, 1]
    assert count.calls == 3, "the deterministic part is cached"
    assert draws(epoch=1, items=1)[1] == [0] * 8
    # fewer samples than items, of which half are cached
    assert draws(epoch=1, items=6, length=5, cache_rate=0.5)[1] == [0, 1, 2, 3, 4]
    assert draws(epoch=1, items=6, length=5, cache_rate=0.5)[2].calls == 3 + 2


def test_draws_depend_on_seed_epoch_and_index_and_nothing_else():
    first = draws(epoch=5)[0]
    assert len(set(first)) == 8
    assert draws(epoch=5, order=[7, 1, 3, 0, 2, 6, 5, 4])[0] == first
    assert not set(draws(epoch=6)[0]) & set(first)
    assert not set(draws(epoch=5, seed=1)[0]) & set(first)


def loader(workers):
    dataset = EpochDataset([{"item": i} for i in range(3)], Compose([Draw()]), 10)
    dataloader = training_loader(dataset, batch_size=2, num_workers=workers)
    result = []
    for epoch in (1, 2):
        dataset.set_epoch(epoch)
        dataloader.sampler.set_epoch(epoch)
        result.append([batch["draw"].tolist() for batch in dataloader])
    return result


def test_batches_are_the_same_with_and_without_workers():
    alone = loader(0)
    assert loader(2) == alone
    assert len(alone[0]) == 5
    assert alone[0] != alone[1]


def test_swapping_a_pair():
    data = {"image": torch.tensor([[1.0], [2.0]]), "label_fixed": "f", "label_moving": "m"}
    assert RandSwapd(0.0)(data)["image"].tolist() == [[1], [2]]
    swapped = RandSwapd(1.0)(data)
    assert swapped["image"].tolist() == [[2], [1]]
    assert (swapped["label_fixed"], swapped["label_moving"]) == ("m", "f")
    assert set(RandSwapd(1.0)({"image": data["image"]})) == {"image"}
