"""Command line of the benchmarks: whole pairs, speed, memory, their growth, accuracy beside other tools, guidance."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from ...cohorts import TASKS
from ...support.bundle import BUNDLE_ROOT
from ...support.command_line import report_in_one_line
from .cost import MEMORY_VARIANTS, print_memory, print_speed, training_peak
from .growth import CASES, measure, write_growth

DATA = Path(BUNDLE_ROOT).parent / "shared" / "data"


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    torch.set_num_threads(getattr(options, "threads", 1))
    torch.manual_seed(0)
    if options.command == "speed":
        print_speed(options.runs, options.device)
    elif options.command == "memory" and options.variant:
        print(training_peak(options.variant, options.size, options.device))
    elif options.command == "memory":
        print_memory(options.size, options.threads, options.device)
    elif options.command == "pairs":
        _measure_pairs(options)
    elif options.command == "growth" and options.case is not None:
        print(json.dumps(measure(CASES[options.case], options.device)))
    elif options.command == "growth":
        write_growth(options.output_dir, options.threads, options.device)
    elif options.command == "cines":
        _measure_cines(options)
    elif options.command == "ejection_fraction":
        from .ejection_fraction import print_ejection_fractions

        print_ejection_fractions(options.data / "acdc", options.figure)
    elif options.command == "guidance":
        from .guidance import print_guidance

        print_guidance(options.task, options.data, options.pairs)
    else:
        _measure_accuracy(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m scripts.tools.benchmark", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    speed = commands.add_parser(
        "speed", help="seconds of evaluations and training steps of the published configuration"
    )
    speed.add_argument("--runs", type=int, default=7)
    memory = commands.add_parser("memory", help="peak memory of one training step, with one process per variant")
    memory.add_argument("--size", type=int, default=64, help="side of the cube")
    memory.add_argument("--variant", choices=MEMORY_VARIANTS, help=argparse.SUPPRESS)
    growth = commands.add_parser("growth", help="time and peak memory over sizes, batches and steps")
    growth.add_argument("--output_dir", type=Path, default=Path(BUNDLE_ROOT) / "docs")
    growth.add_argument("--case", type=int, help=argparse.SUPPRESS)
    pairs = commands.add_parser("pairs", help="CPU seconds of whole pairs, from files to files, and their peak memory")
    pairs.add_argument("--data", type=Path, default=DATA, help="folder with the data sets (default: %(default)s)")
    pairs.add_argument("--runs", type=int, default=3)
    pairs.add_argument("--pair", help=argparse.SUPPRESS)
    pairs.add_argument("--greedy", action="store_true", help=argparse.SUPPRESS)
    for command in (speed, memory, growth):
        command.add_argument("--threads", type=int, default=1)
        command.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    _add_accuracy(
        commands.add_parser(
            "accuracy", help="every method on the same pairs, on one thread; continues if it was stopped"
        )
    )
    guidance = commands.add_parser("guidance", help="planted lesions, landmarks and labels, with and without their use")
    guidance.add_argument("task", choices=("hippocampus", "brain"))
    guidance.add_argument("--data", type=Path, default=DATA, help="folder with the data sets (default: %(default)s)")
    guidance.add_argument("--pairs", type=int, help="only the first pairs")
    cines = commands.add_parser("cines", help="tracking of cines of known motion, made of ACDC's patients")
    cines.add_argument("--data", type=Path, default=DATA, help="folder with the data sets (default: %(default)s)")
    cines.add_argument("--patients", default="4,8,14,20", help="their numbers (default: %(default)s)")
    cines.add_argument("--frames", type=int, default=15)
    cines.add_argument("--through_plane", type=float, default=0.0, help="mm by which the base moves to the apex")
    cines.add_argument("--methods", default="", help="only methods with this text in their names")
    fractions = commands.add_parser("ejection_fraction", help="by carried labels and by those of experts, in ACDC")
    fractions.add_argument("--data", type=Path, default=DATA, help="folder with the data sets (default: %(default)s)")
    fractions.add_argument(
        "--figure", type=Path, default=Path(BUNDLE_ROOT) / "docs" / "figures" / "ejection_fraction.png"
    )
    return parser


def _measure_pairs(options: argparse.Namespace) -> None:
    from .pairs import measure_greedy, measure_pair, print_pairs

    if options.greedy:
        print(measure_greedy(options.pair, options.data))
    elif options.pair:
        print(measure_pair(options.pair, options.data, options.runs))
    else:
        print_pairs(options.data, options.runs)


def _measure_cines(options: argparse.Namespace) -> None:
    from ..cines import Motion
    from .cines import print_cines

    motion = Motion(frames=options.frames, through_plane=options.through_plane)
    print_cines(options.data / "acdc", [int(n) for n in options.patients.split(",")], motion, options.methods)


def _measure_accuracy(options: argparse.Namespace) -> None:
    from .accuracy import Benchmark, first_pair_peak  # needs SimpleITK, which a bare machine with a GPU may lack

    if options.memory_of:
        print(first_pair_peak(options.task, options.data, options.network, options.memory_of))
        return
    output_dir = options.output_dir or Path(BUNDLE_ROOT) / "eval" / "accuracy" / options.task
    benchmark = Benchmark(options.task, options.data, options.network, output_dir, options.pairs)
    benchmark.run([text.strip() for text in options.methods.split(",")], options.fresh)


def _add_accuracy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--data", type=Path, default=DATA, help="folder with the data sets (default: %(default)s)")
    parser.add_argument(
        "--methods", default="", help="only methods with one of these texts in their names: 'greedy,syn'"
    )
    parser.add_argument("--pairs", type=int, help="only the first pairs")
    parser.add_argument(
        "--network",
        action="append",
        default=[],
        metavar="NAME=WEIGHTS[,OVERLAY.yaml...][,KEY=VALUE...]",
        help="a further network, with overlays of evaluate.yaml and overrides; may be repeated",
    )
    parser.add_argument("--output_dir", type=Path, help="default: eval/accuracy/TASK")
    parser.add_argument("--fresh", action="store_true", help="measure the chosen methods again")
    parser.add_argument("--memory_of", help=argparse.SUPPRESS)


if __name__ == "__main__":
    sys.excepthook = report_in_one_line
    main()
