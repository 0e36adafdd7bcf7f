"""Curves of trainings that come one after the other."""

import pytest
from torch.utils.tensorboard import SummaryWriter

from scripts.support.errors import InputError
from scripts.tools.curves import TRAININGS, draw_curves, main, read_curve

from ..conftest import ROOT


def write_training(folder, loss, dice):
    """As a training does it, with a writer of its own for each tag."""
    for tag, values in {"loss": loss, "dice": dice}.items():
        with SummaryWriter(folder / "tensorboard", filename_suffix=tag) as writer:
            for epoch, value in values.items():
                writer.add_scalar(tag, value, epoch)


def test_epochs_and_values_are_read(tmp_path):
    write_training(tmp_path, {1: 0.5, 2: 0.25, 3: 0.125}, {3: 0.75})
    assert read_curve(tmp_path, "loss") == ([1, 2, 3], [0.5, 0.25, 0.125])
    assert read_curve(tmp_path, "dice") == ([3], [0.75])
    with pytest.raises(InputError, match=r"has no curve 'ncc': expected the output folder of a training"):
        read_curve(tmp_path, "ncc")


def test_all_trainings_are_drawn(tmp_path, monkeypatch):
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    lines, limits = [], []
    plot, savefig = Axes.plot, Figure.savefig
    monkeypatch.setattr(
        Figure,
        "savefig",
        lambda self, *a, **o: limits.extend(x.get_xlim() for x in self.axes) or savefig(self, *a, **o),
    )
    monkeypatch.setattr(Axes, "plot", lambda *args, **options: lines.append(args[1:3]) or plot(*args, **options))
    for name in sum(TRAININGS.values(), ()):
        write_training(tmp_path / name, {1: 0.5, 2: 0.25}, {2: 0.75})
    main(["--weights_dir", str(tmp_path), "--output", str(tmp_path / "curves.png")])
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert lines[:4] == [([1, 2], [0.5, 0.25]), ([2], [0.75]), ([3, 4], [0.5, 0.25]), ([4], [0.75])]  # counted through
    assert [low for low, _ in limits] == [0] * 6
    assert [high for _, high in limits] == pytest.approx([2 * len(names) for names in TRAININGS.values()] * 2, rel=0.1)
    (tmp_path / "brain" / "tensorboard").rename(tmp_path / "gone")
    (tmp_path / "curves.png").unlink()
    with pytest.raises(InputError, match="brain has no curve 'loss'"):
        draw_curves(tmp_path, tmp_path / "curves.png")
    assert not list(tmp_path.glob("*.png"))


def test_the_trainings_are_those_of_the_script_that_remakes_the_weights():
    script = (ROOT / "models" / "train.sh").read_text()
    for name in sum(TRAININGS.values(), ()):
        assert f"    train {name} " in script or f") train {name} " in script
