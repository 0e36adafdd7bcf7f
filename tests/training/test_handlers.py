"""The parts of a training, on a problem small enough to do by hand."""

import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer

from scripts.support.errors import InputError
from scripts.training.handlers import ClipGradients, TrainingState, prepare_batch


def make_trainer(network, optimizer, handlers, epochs=3, loss=None):
    """Two iterations an epoch of: loss = w * x, whose gradient is x = 3."""
    data = [{"image": torch.full((1, 1), 3.0)}] * 2
    return SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=data,
        network=network,
        optimizer=optimizer,
        loss_function=loss or (lambda pred, target: pred.mean()),
        prepare_batch=prepare_batch,
        decollate=False,
        train_handlers=handlers,
    )


def make_parts(weight=1.0, lr=0.1):
    network = torch.nn.Linear(1, 1, bias=False)
    network.weight.data.fill_(weight)
    return network, torch.optim.SGD(network.parameters(), lr)


class Scores:
    """A validating engine that gives one score after the other, after each epoch of the trainer."""

    def __init__(self, *scores):
        self.scores = list(scores)
        self.engine = Engine(lambda engine, batch: None)

    def attach(self, trainer):
        trainer.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, trainer):
        self.engine.add_event_handler(Events.EPOCH_COMPLETED, self.set)
        self.engine.run([0], max_epochs=1)

    def set(self, engine):
        engine.state.metrics["dice"] = self.scores[0]

    def next(self, trainer):
        self.scores.pop(0)


def test_weights_of_something_else_are_not_overwritten_and_debris_is_removed(tmp_path):
    (tmp_path / "model.pt").write_text("mine")
    (tmp_path / ".partial_x").write_text("")
    network, optimizer = make_parts()
    scores = Scores(0.5, 0.4, 0.3)
    state = TrainingState(tmp_path, {"network": network, "optimizer": optimizer}, scores.engine)
    with pytest.raises(InputError, match=r"holds model.pt of something else: expected another folder"):
        make_trainer(network, optimizer, [scores, state], epochs=1).run()
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]
    assert (tmp_path / "model.pt").read_text() == "mine"


def test_the_norm_of_the_gradient_is_clipped():
    network, optimizer = make_parts()
    make_trainer(network, optimizer, [ClipGradients(2.0)], epochs=1).run()
    # two steps of 0.1 * 2 in place of 0.1 * 3
    assert network.weight.item() == pytest.approx(1 - 2 * 0.2, abs=1e-5)


def test_a_loss_that_is_not_finite_ends_the_training():
    network, optimizer = make_parts()
    trainer = make_trainer(network, optimizer, [ClipGradients(1.0)], loss=lambda pred, _: pred.mean() * torch.inf)
    with pytest.raises(InputError, match=r"the loss is inf in epoch 1: expected a finite number; try a smaller"):
        trainer.run()
    assert network.weight.item() == 1


def train(folder, scores, epochs, resume=False, patience=0):
    network, optimizer = make_parts()
    validation = Scores(*scores)
    parts = {"network": network, "optimizer": optimizer}
    state = TrainingState(folder, parts, validation.engine, "dice", patience, resume)
    trainer = make_trainer(network, optimizer, [validation, state], epochs)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, validation.next)
    trainer.run()
    return trainer, network


def saved_weight(path):
    state = torch.load(path, weights_only=True)
    return state.get("network", state)["weight"].item()


def test_best_and_last_weights(tmp_path):
    train(tmp_path, [0.5, 0.9, 0.7], epochs=3)
    # 0.3 down each of two iterations an epoch
    assert saved_weight(tmp_path / "checkpoint.pt") == pytest.approx(1 - 6 * 0.3)
    assert saved_weight(tmp_path / "model.pt") == pytest.approx(1 - 4 * 0.3)


def test_a_continued_training_remembers_its_best(tmp_path):
    train(tmp_path, [0.5, 0.9], epochs=2)
    trainer, network = train(tmp_path, [0.8, 0.85], epochs=4, resume=True)
    assert (trainer.state.epoch, trainer.state.iteration) == (4, 8)
    assert network.weight.item() == pytest.approx(1 - 8 * 0.3)
    assert saved_weight(tmp_path / "model.pt") == pytest.approx(1 - 4 * 0.3), "0.9 of epoch 2 is still the best"
    train(tmp_path, [0.95], epochs=5, resume=True)
    assert saved_weight(tmp_path / "model.pt") == pytest.approx(1 - 10 * 0.3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.pt", "model.pt"]


def test_early_stopping_counts_on_across_a_continuation(tmp_path):
    train(tmp_path, [0.9, 0.5], epochs=2, patience=2)
    trainer, _ = train(tmp_path, [0.6, 0.7, 0.8], epochs=5, patience=2, resume=True)
    assert trainer.state.epoch == 3, "the second validation without improvement is the last"


def test_resuming_without_a_checkpoint_begins(tmp_path):
    trainer, _ = train(tmp_path, [0.5], epochs=1, resume=True)
    assert trainer.state.epoch == 1


def test_a_folder_with_a_training_is_not_overwritten(tmp_path):
    train(tmp_path, [0.5], epochs=1)
    with pytest.raises(InputError, match=r"already has a training: expected --resume true, which continues it"):
        train(tmp_path, [0.5], epochs=1)


def test_a_checkpoint_that_does_not_fit_or_is_damaged(tmp_path):
    train(tmp_path, [0.5], epochs=1)
    path = tmp_path / "checkpoint.pt"
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    with pytest.raises(InputError, match=r"resume: .*checkpoint.pt does not continue this training \("):
        train(tmp_path, [0.5], epochs=2, resume=True)
    torch.save({"network": {"other": torch.ones(1)}}, path)
    with pytest.raises(InputError, match=r"resume: .*checkpoint.pt does not continue this training \("):
        train(tmp_path, [0.5], epochs=2, resume=True)


def test_a_validation_without_the_measure(tmp_path):
    with pytest.raises(InputError, match="val_metric is 'dice', and the validation gave nan: expected a metric that"):
        train(tmp_path, [float("nan")], epochs=1)
    assert not (tmp_path / "model.pt").exists()
