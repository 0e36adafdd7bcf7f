"""The comparison with other tools: what each one returns, the statistics, and a small comparison that goes on."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch

from scripts.tools.benchmark import accuracy
from scripts.tools.benchmark.__main__ import main
from scripts.tools.benchmark.classical import bspline, demons, greedy, syn, unregistered
from scripts.tools.benchmark.comparisons import COMPARISONS, Tool, UnavailableError, methods_of, parse_network
from scripts.tools.benchmark.table import bootstrap_interval, compare, summarize

from ..conftest import ROOT, SAMPLES, load_json, message_of

SHIFTS = {2: ((40, 36), (3, -2)), 3: ((28, 24, 32), (2, -1, 3))}
TABLE_FILES = {"pairs.csv", "table.md", "summary.json", "dice_time.png", "dice_folding.png"}


def blob(shape, center):
    """A Gaussian of another width along each axis."""
    grid = np.meshgrid(*map(np.arange, shape), indexing="ij")
    squares = [((x - c) / (4 + axis)) ** 2 for axis, (x, c) in enumerate(zip(grid, center))]
    return np.exp(-sum(squares) / 2).astype(np.float32)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(
    ("tool", "package"),
    [
        (lambda f, m: greedy(f, m, "-m SSD -n 60x40 -s 2vox 0.5vox"), "picsl_greedy"),
        (lambda f, m: demons(f, m, 1.5, (60, 40, 20)), "SimpleITK"),
        (lambda f, m: demons(f, m, 1.5, (60, 40, 20), match_histograms=True), "SimpleITK"),
        (lambda f, m: bspline(f, m, 8, 50), "SimpleITK"),
        (lambda f, m: syn(f, m, 2, (30, 15, 0)), "ants"),
    ],
    ids=["greedy", "demons", "demons_histograms", "bspline", "syn"],
)
def test_a_known_shift_is_found_with_its_sign_and_order_of_axes(tool, package, dims):
    pytest.importorskip(package)
    shape, shift = SHIFTS[dims]
    center = [n // 2 for n in shape]
    moved = [c + s for c, s in zip(center, shift)]
    ddf = tool(blob(shape, center), blob(shape, moved))
    assert (ddf.shape, ddf.dtype) == ((dims, *shape), np.float32)
    np.testing.assert_allclose(ddf[(slice(None), *center)], shift, atol=0.5)  # moving(x + ddf(x)) = fixed(x)


def test_a_stack_is_registered_slice_by_slice(tmp_path):
    (tmp_path / "acdc").symlink_to(SAMPLES / "sunnybrook")
    task = replace(
        COMPARISONS["cardiac"],
        tools={"sums": Tool(lambda f, m, unit: np.stack([f.mean() + 0 * f, m * unit]), {"unit": 2})},
    )
    method = methods_of(task, tmp_path, {})["sums"]()
    image = torch.rand(2, 4, 5, 3)
    ddf = method.register(image)
    assert method.settings.endswith(": unit 2")
    torch.testing.assert_close(ddf[0], image[1].mean((0, 1)).expand(4, 5, 3))
    torch.testing.assert_close(ddf[1], 2 * image[0])
    assert not ddf[2].any(), "no motion through the planes"


def test_bootstrap_interval():
    assert bootstrap_interval([0.5, 0.5, 0.5]) == (0.5, 0.5)
    # means of two are 0, 0.5 and 1 in 1/4, 1/2 and 1/4 of the resamples
    assert bootstrap_interval([0, 1]) == (0, 1)
    # of 100 zeros and ones, half each: 0.5 +- 1.96 * sqrt(0.25 / 100)
    assert bootstrap_interval([0, 1] * 50) == pytest.approx((0.402, 0.598), abs=0.011)


def test_comparison_of_the_same_pairs():
    # five differences of one sign: 2 of the 2^5 choices of signs are as extreme
    found = compare([0.6, 0.7, 0.8, 0.9, 1.0], [0.5, 0.5, 0.5, 0.5, 0.5])
    assert found["mean"] == pytest.approx(0.3)
    assert found["p"] == pytest.approx(2 / 32)
    # +1 -2 +3 +4: rank sums 8 and 2; sums up to 2 are {}, {1}, {2}, so p = 2 * 3 / 2^4
    assert compare([1, 0, 3, 4], [0, 2, 0, 0])["p"] == pytest.approx(6 / 16)
    same = compare([0.5, 0.6], [0.5, 0.6])
    assert same == {"mean": 0, "interval": (0, 0), "p": 1}


def row(dice, seconds, parameters=None):
    return {
        **{"settings": "s", "cpu_s": seconds, "wall_s": seconds, "peak_mib": 5.0, "parameters": parameters},
        **{"dice.after.LV": dice, "dice.after.mean": dice},
        **{f"folding.whole_grid.{key}": 0.5 for key in ("folding_percent", "ndv_percent", "std_log_jacobian")},
    }


def test_the_reference_is_the_greedy_with_the_best_dice():
    network, best, worse = summarize(
        {
            "GraDIRN": [row(0.9, 1.0, 7.0), row(0.8, 3.0, 7.0), row(0.7, 2.0, 7.0)],
            "Greedy A": [row(0.8, 4.0), row(0.6, 4.0), row(0.7, 9.0)],
            "Greedy B": [row(0.5, 1.0), row(0.5, 1.0), row(0.8, 1.0)],
        }
    )
    assert (network["method"], network["pairs"], network["parameters"], network["peak_mib"]) == ("GraDIRN", 3, 7, 5)
    assert network["dice"]["mean"] == pytest.approx(0.8)
    assert network["dice_of_class"] == {"LV": pytest.approx(0.8)}
    assert (network["median_cpu_seconds"], network["cpu_seconds_of_reference"]) == (2, 0.5)
    assert network["dice_minus_reference"]["mean"] == pytest.approx(0.1)
    assert best["dice_minus_reference"] is None
    assert worse["cpu_seconds_of_reference"] == 0.25
    assert worse["dice_minus_reference"]["mean"] == pytest.approx(-0.1)


def test_networks_of_the_command_line(tmp_path):
    weights = tmp_path / "model.pt"
    weights.touch()
    name, network = parse_network(f"our own={weights},voxelmorph.yaml,amp=true,network_def::num_blocks=[1,1,1],a=b")
    assert (name, network.weights, network.overlays) == ("our own", str(weights), ("voxelmorph.yaml",))
    assert network.overrides == {"amp": True, "network_def::num_blocks": [1, 1, 1], "a": "b"}
    for text in ("model.pt", f"=,{weights}", f"a={weights},voxelmorph"):
        assert message_of(lambda text=text: parse_network(text)).startswith(f"--network is '{text}': expected NAME=")
    assert "none.pt does not exist: expected the weights of 'a'" in message_of(lambda: parse_network("a=none.pt"))


def test_what_is_missing_is_said_in_one_line(tmp_path):
    (tmp_path / "acdc").symlink_to(SAMPLES / "sunnybrook")
    assert "--data" in message_of(lambda: main(["accuracy", "brain", "--data", str(tmp_path)]))
    arguments = ["accuracy", "cardiac", "--data", str(tmp_path), "--output_dir", str(tmp_path / "out")]
    assert message_of(lambda: main([*arguments, "--methods", "elastix"])).startswith("--methods: no method to run")
    network = f"added={ROOT / 'models' / 'model.pt'}"
    for wrong, said in (
        (",none.yaml", "none.yaml does not exist"),
        (",amb=1", "unknown option amb: expected one that"),
    ):
        assert said in message_of(
            lambda text=network + wrong: main([*arguments, "--methods", "added", "--network", text])
        )
    missing = replace(
        COMPARISONS["cardiac"], tools={"other": Tool(unregistered, package="other", module="no_such_module")}
    )
    missing = replace(
        missing, networks={"net": replace(COMPARISONS["cardiac"].networks["VoxelMorph"], weights="no/model.pt")}
    )
    methods = methods_of(missing, tmp_path, {})
    with pytest.raises(UnavailableError, match=r"pip install -r requirements-benchmark.txt installs other"):
        methods["other"]()
    with pytest.raises(
        UnavailableError, match=r"no/model.pt does not exist: models/train.sh cardiac_voxelmorph makes it"
    ):
        methods["net"]()


@pytest.fixture
def small_task(monkeypatch, tmp_path):
    """Cardiac pairs of two shipped samples on a coarse grid; the peak is not measured in a process of its own."""
    for name in ("SC-HF-NI-15", "SC-HYP-09"):
        (tmp_path / "data" / "acdc").mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / "acdc" / name).symlink_to(SAMPLES / "sunnybrook" / name)
    small = {"subset": "all", "spatial_size": [48, 48, -1], "spacing": [4, 4, -1]}
    monkeypatch.setitem(COMPARISONS, "cardiac", replace(COMPARISONS["cardiac"], overrides=small))
    monkeypatch.setattr(accuracy.Benchmark, "_peak", lambda self, name: 12.5)
    return ["accuracy", "cardiac", "--data", str(tmp_path / "data"), "--output_dir", str(tmp_path / "out")]


def rows(folder):
    with (folder / "pairs.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_comparison_goes_on_where_it_was_left(small_task, tmp_path, capsys):
    out = tmp_path / "out"
    weights = tmp_path / "model.pt"
    weights.write_bytes((ROOT / "models" / "model.pt").read_bytes())
    network = ["--network", f"ours={weights}"]
    main([*small_task, "--methods", "unregistered,demons", "--pairs", "1"])
    first = rows(out)
    assert [(r["method"], r["pair"]) for r in first] == [("unregistered", "SC-HF-NI-15"), ("demons", "SC-HF-NI-15")]
    main([*small_task, "--methods", "unregistered,demons,ours", *network])
    second = rows(out)
    assert second[:2] == [{**dict.fromkeys(second[0], ""), **r} for r in first], "nothing is measured twice"
    assert sorted((r["method"], r["pair"]) for r in second) == [
        (method, pair) for method in ("demons", "ours", "unregistered") for pair in ("SC-HF-NI-15", "SC-HYP-09")
    ]
    assert {path.name for path in out.iterdir()} == TABLE_FILES
    for name in ("dice_time.png", "dice_folding.png"):
        assert (out / name).stat().st_size > 5000
    summary = load_json(out / "summary.json")
    found = {method["method"]: method for method in summary["methods"]}
    assert found["unregistered"]["dice"]["mean"] < found["demons"]["dice"]["mean"] < 1
    assert found["unregistered"]["dice"]["mean"] < found["ours"]["dice"]["mean"] < 1
    assert found["unregistered"]["folding_percent"] == 0
    assert found["unregistered"]["parameters"] is None
    assert found["ours"]["parameters"] == sum(v.numel() for v in torch.load(weights, weights_only=True).values())
    assert found["ours"]["peak_mib"] == 12.5
    assert list(found["ours"]["dice_of_class"]) == ["LV"]
    assert all(method["median_cpu_seconds"] > 0 for method in found.values())
    table = (out / "table.md").read_text()
    assert all(f"\n| {name} | 0." in table for name in found)
    assert table in capsys.readouterr().out

    state = torch.load(weights, weights_only=True)
    torch.save({key: 0 * value for key, value in state.items()}, weights)
    main([*small_task, "--methods", "ours", *network])
    third = {(r["method"], r["pair"]): r for r in rows(out)}
    assert len(third) == len(second)
    for r in second:
        changed = third[r["method"], r["pair"]]["digest"] != r["digest"]
        assert changed == (r["method"] == "ours"), "other weights are measured again"
    assert {method["method"] for method in load_json(out / "summary.json")["methods"]} == set(found)

    main([*small_task, "--methods", "unregistered", "--fresh", *network])
    fourth = {(r["method"], r["pair"]): r for r in rows(out)}
    assert set(fourth) == set(third)
    for place, r in third.items():
        same_time = fourth[place]["wall_s"] == r["wall_s"]
        assert same_time == (place[0] != "unregistered"), "only the chosen methods are measured again"


@pytest.mark.slow
def test_the_peak_is_that_of_a_process_for_each_method(small_task, tmp_path, monkeypatch):
    monkeypatch.undo()
    data = tmp_path / "data"
    benchmark = accuracy.Benchmark("cardiac", data, [], tmp_path / "out")
    assert benchmark._peak("unregistered") < benchmark._peak("GraDIRN") < 2000
