"""What is free, by the machine and by the containers around the process."""

import pytest
import torch

from scripts.support.memory import available_memory, memory_bytes

CPU = torch.device("cpu")


@pytest.fixture
def write(tmp_path):
    def files(**contents):
        for name, text in contents.items():
            path = tmp_path / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return files


def test_a_limit_counts_in_gib_and_nothing_known_is_infinite(tmp_path):
    assert memory_bytes(1.5) == 1.5 * 2**30
    assert available_memory(CPU, tmp_path) == float("inf")


def test_the_free_memory_is_known_on_linux():
    assert 2**20 < available_memory(CPU) < 2**50


def test_the_machine(write):
    root = write(proc__meminfo="MemTotal:  9000 kB\nMemAvailable:  4000 kB\n")
    assert available_memory(CPU, root) == 4000 * 1024


def test_the_tightest_group_counts_without_its_file_cache(write):
    root = write(
        proc__meminfo="MemAvailable:  4000 kB\n",
        proc__self__cgroup="0::/outer/inner\n",
        sys__fs__cgroup__outer__inner__memory_dot_max="max\n",
        sys__fs__cgroup__outer__inner__memory_dot_current="500000\n",
        sys__fs__cgroup__outer__memory_dot_max="1000000\n",
        sys__fs__cgroup__outer__memory_dot_current="700000\n",
        sys__fs__cgroup__outer__memory_dot_stat="anon 500000\ninactive_file 200000\n",
    )
    assert available_memory(CPU, root) == 500000


def test_groups_of_version_1(write):
    root = write(
        proc__meminfo="MemAvailable:  4000 kB\n",
        proc__self__cgroup="4:cpu:/x\n3:memory:/docker/x\n",
        sys__fs__cgroup__memory__memory_dot_limit_in_bytes="3000000\n",
        sys__fs__cgroup__memory__memory_dot_usage_in_bytes="1000000\n",
    )
    assert available_memory(CPU, root) == 2000000
