"""The tasks of the bundle: each has its files, and each layout has a task."""

from pathlib import Path

from scripts.cohorts import TASKS, find_task, task_of
from scripts.cohorts.layouts import DATALIST, LAYOUTS

from ..conftest import message_of


def test_a_layout_says_which_network_its_images_are_for():
    tasks = {name: task_of(name).name for name in LAYOUTS}
    assert {tasks[name] for name in ("acdc", "mnms2", "sunnybrook", "ukbb")} == {"cardiac"}
    assert tasks["hippocampus"] == "hippocampus"
    assert {tasks[name] for name in ("ibsr", "brains", "oasis")} == {"brain"}


def test_each_layout_belongs_to_one_task():
    named = [layout for task in TASKS.values() for layout in task.layouts]
    assert sorted(named) == sorted([*LAYOUTS, DATALIST.name])


def test_the_files_of_each_task_are_there():
    for task in TASKS.values():
        assert task.weights_file.is_file()
        for mode in ("train", "evaluate", "inference"):
            files = [Path(file) for file in task.config_files(mode)]
            assert [file.stem for file in files] == [mode, *task.overlays]
            assert all(file.is_file() for file in files)


def test_what_is_no_task_is_named():
    assert message_of(lambda: find_task("lung")) == (
        "unknown task 'lung': expected one of cardiac, hippocampus, brain."
    )
    assert "the layout 'bids' belongs to no task" in message_of(lambda: task_of("bids"))
