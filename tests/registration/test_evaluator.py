"""The engine alone: with and without a writer, with ignite metrics, among processes."""

import logging
import math
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from ignite.metrics import Average
from monai.data import Dataset

from scripts.registration import Registration
from scripts.registration.evaluator import MeanOverPairs, PairEvaluator
from scripts.registration.inferer import RegistrationInferer
from scripts.support.errors import InputError
from scripts.verdict import Verdict


class MeanOfImage(torch.nn.Module):
    """A network whose ddf is the mean of the image everywhere."""

    def forward(self, image):
        return image.mean() * torch.ones(1, 3, *image.shape[2:])


class Measured(Registration):
    """A registration whose result is a Dice for pairs with labels, and the mean of the field."""

    def result(self, inputs, data, ddf):
        ddf = data["ddf"] if ddf is None else ddf
        metrics = {"folding": {"whole_grid": {"folding_percent": ddf.mean().item()}}}
        if inputs["name"] != "unlabelled":
            metrics["dice"] = {"after": {"mean": inputs.get("dice", 0.5)}}
        verdict = Verdict(inputs.get("verdict", "good"), score=0.0)
        return SimpleNamespace(inputs=inputs, metrics=metrics, seconds={}, verdict=verdict, warnings=[])


def pair(name, value=1.0, **more):
    image = torch.full((2, 4, 4, 4), float(value))
    image[..., :2] -= 0.5  # a constant image would not be moved
    image[..., 2:] += 0.5
    return {"name": name, "image": image, **more}


def make(pairs, **options):
    registration = Measured(MeanOfImage(), dict, RegistrationInferer(3))
    return PairEvaluator(dataset=Dataset(pairs), registration=registration, **options)


class Recorder:
    """Stands for the writer, or for the summary of all pairs."""

    output_dir = "here"
    outputs = ()

    def __init__(self, done=()):
        self.prepared, self.written, self.done = 0, [], done

    def prepare(self, pairs=()):
        self.prepared += 1

    def is_done(self, pair, settings):
        return pair["name"] in self.done

    def write(self, *arguments):
        self.written.append(arguments)

    def verdict(self, pair):
        return "doubtful"

    def missing(self, pair):
        return pair["name"] == "removed"

    def folder(self, pair):
        return f"here/{pair['name']}"


def test_validation_needs_no_writer_and_has_ignite_metrics():
    pairs = [pair("a", 1, dice=0.5), pair("b", 2, dice=0.75), pair("unlabelled", 6)]
    evaluator = make(
        pairs,
        key_val_metric={"dice": MeanOverPairs("dice.after.mean")},
        additional_metrics={
            "folding_percent": MeanOverPairs("folding.whole_grid.folding_percent"),
            "average": Average(lambda output: output["metrics"]["folding"]["whole_grid"]["folding_percent"]),
            "nothing": MeanOverPairs("dice.before.mean"),
        },
    )
    for epoch in (1, 2):
        evaluator.run(epoch)
        assert evaluator.state.metrics["dice"] == pytest.approx((0.5 + 0.75) / 2)
        assert evaluator.state.metrics["folding_percent"] == evaluator.state.metrics["average"] == 3
        assert math.isnan(evaluator.state.metrics["nothing"])
        assert evaluator.state.epoch == epoch
    assert evaluator.state.best_metric == pytest.approx(0.625)
    assert evaluator.state.output["name"] == "unlabelled"


def test_a_pair_with_a_displacement_does_not_go_through_the_network():
    evaluator = make([pair("a", 1, displacement="file", ddf=torch.full((3, 4, 4, 4), 7.0))])
    evaluator.run()
    assert evaluator.state.output["metrics"]["folding"]["whole_grid"]["folding_percent"] == 7


def test_writer_and_summary_get_what_was_found(caplog):
    caplog.set_level(logging.INFO, "scripts")
    writer, summary = Recorder(done=["done"]), Recorder()
    evaluator = make([pair("b"), pair("done"), pair("bad", math.nan), pair("a", 2)], writer=writer, summary=summary)
    with pytest.raises(InputError, match=r"^1 of 4 pairs failed: bad\.$"):
        evaluator.run()
    assert writer.prepared == summary.prepared == 1
    assert [written[0].inputs["name"] for written in writer.written] == ["b", "a"]
    ((rows, failures, seconds),) = summary.written
    assert [row["name"] for row in rows] == ["b", "a"]
    assert rows[0]["metrics"]["dice"] == {"after": {"mean": 0.5}}
    assert set(rows[0]["seconds"]) == {"read", "network", "native_grid"}
    assert list(failures) == ["bad"]
    assert "not finite" in failures["bad"]
    assert seconds > 0
    assert "registered 2, skipped 1 finished, failed 1: results in here" in caplog.text


@pytest.mark.parametrize(("level", "named"), [("doubtful", "b, c, done"), ("failed", "c")])
def test_a_verdict_can_decide_on_the_exit(level, named):
    pairs = [pair("a"), pair("b", verdict="doubtful"), pair("c", verdict="failed"), pair("done")]
    evaluator = make(pairs, writer=Recorder(done=["done"]), fail_on=level)
    with pytest.raises(InputError) as error:
        evaluator.run()
    assert f"--fail_on {level}: {len(named.split())} of 4 pairs" in str(error.value)
    assert [name for name in "abc" if f"{name} (" in str(error.value)] == [n for n in named.split(", ") if n in "abc"]
    assert len(evaluator.rows) == 3, "everything is written before"


def test_results_that_are_removed_in_the_meantime_are_failures(caplog):
    caplog.set_level(logging.INFO, "scripts")
    with pytest.raises(InputError, match=r"^1 of 2 pairs failed: removed\.$"):
        make([pair("a"), pair("removed")], writer=Recorder()).run()
    assert "registered 1, skipped 0 finished, failed 1" in caplog.text
    with pytest.raises(InputError, match="output_dir: here/removed was removed while the registration was running"):
        make([pair("removed")], writer=Recorder()).run()


def test_what_goes_wrong_with_a_single_pair_is_raised_itself():
    summary = Recorder()
    with pytest.raises(InputError, match="not finite"):
        make([pair("bad", math.nan)], summary=summary).run()
    assert summary.written == []


def _process(rank, folder, pairs):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    try:
        summary, writer = Recorder(), Recorder()
        evaluator = make(
            pairs, summary=summary, writer=writer, key_val_metric={"dice": MeanOverPairs("dice.after.mean")}
        )
        try:
            evaluator.run()
            error = None
        except InputError as caught:
            error = str(caught)
        own = [written[0].inputs["name"] for written in writer.written]
        everyone = [[row["name"] for row in rows] for rows, _, _ in summary.written]
        torch.save((own, everyone, evaluator.state.metrics["dice"], error), folder / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 5])
def test_processes_share_the_pairs_and_one_of_them_sums_up(tmp_path, number):
    pairs = [pair(f"p{index}", index, dice=index / 10) for index in range(number)]
    mp.spawn(_process, (tmp_path, pairs), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    names = [p["name"] for p in pairs]
    assert (first[0], second[0]) == (names[::2], names[1::2])
    assert (first[1], second[1]) == ([names], [])
    expected = sum(p["dice"] for p in pairs) / number
    assert first[2] == second[2] == pytest.approx(expected)
    assert first[3] is second[3] is None


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 3])
def test_every_process_ends_in_an_error_when_a_pair_fails(tmp_path, number):
    pairs = [pair(f"p{index}", index) for index in range(number - 1)] + [pair("bad", math.nan)]
    mp.spawn(_process, (tmp_path, pairs), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert first[3] == second[3]
    assert ("not finite" if number == 1 else "1 of 3 pairs failed: bad.") in first[3]
    assert first[1] == ([] if number == 1 else [["p0", "p1"]])
