"""``python -m utcp.check``: explore every order of events over a lifecycle, for a configuration of your own."""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from multiprocessing import get_context
from operator import call
from time import perf_counter
from typing import Any, Final

from utcp.check.explore import Edge, Result, explore
from utcp.check.report import HEAD, line, show_trace, transitions
from utcp.check.scenarios import SCENARIOS, VERBS, Scenario
from utcp.check.world import World
from utcp.core.config import Config

LIMIT: Final = 50_000  # states of a scenario, without --deep


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 when every invariant held, 1 when one did not, 2 for a wrong option."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.faults is None:
        args.faults = 3 if args.deep else 1
    if args.free_faults is None:
        args.free_faults = 1 if args.deep else 0
    try:
        config = dict(_setting(text) for text in args.config)
        scenarios = _scenarios(args)
        if args.jobs < 1:
            raise ValueError("--jobs: needs at least 1")
        for scenario in scenarios:
            World(scenario, config)
    except (ValueError, TypeError) as error:
        parser.error(str(error))
    if args.replay is not None:
        return _replay(scenarios[0], args.replay.split(), config)
    print(HEAD)
    taken: set[Edge] = set()
    began = perf_counter()
    states = steps = 0
    limit = args.limit if args.limit is not None or args.deep else LIMIT
    runs = [(args.free_faults, False), (args.faults, True)]
    tasks = [
        partial(explore, scenario, faults, prompt=prompt, config=config, limit=limit, depth=args.depth)
        for scenario, (faults, prompt) in product(scenarios, runs)
    ]
    for result in _results(tasks, args.jobs):
        scenario = result.scenario
        print(line(result), flush=True)
        taken |= result.transitions
        states += result.states
        steps += result.steps
        if result.violation:
            print(f"\n{result.violation}\n")
            show_trace(scenario, result.trace, config, World, sys.stdout)
            options = "".join(f" --config {text}" for text in args.config)
            if args.client is not None:
                options += f" --client {args.client!r} --server {args.server!r}"
            else:
                options += f" --scenario {scenario.name}"
            print(f"\npython -m utcp.check{options} --replay {' '.join(result.trace)!r}")
            return 1
    print(f"\n{states:,} states, {steps:,} steps, {perf_counter() - began:.0f} s. Every invariant held.")
    print(*transitions(taken), sep="\n")
    return 0


def _results(tasks: list[partial[Result]], jobs: int) -> Iterator[Result]:
    """In the order of the tasks, each in a process of its own if there are several jobs."""
    if jobs == 1:
        yield from (task() for task in tasks)
        return
    with ProcessPoolExecutor(jobs, max_tasks_per_child=1, mp_context=get_context("spawn")) as pool:
        try:
            yield from pool.map(call, tasks)
        finally:
            pool.shutdown(cancel_futures=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m utcp.check",
        description="Two real engines and a model network: every order of deliveries, timers and calls, with up to k "
        "segments lost, doubled, reordered or late, and silence from any state on; I1 to I6 hold in each of them.",
        epilog="Each scenario is explored twice: with calls at any time, and with calls made as soon as they can be "
        "and more faults. Scenarios: "
        + "; ".join(f"{scenario.name}: {scenario.about}" for scenario in SCENARIOS.values()),
    )
    parser.add_argument("--scenario", action="append", choices=SCENARIOS, metavar="NAME", help="default: all of them")
    parser.add_argument("--faults", type=int, metavar="K", help="faults with prompt calls (default: 1; with --deep 3)")
    parser.add_argument("--free-faults", type=int, metavar="K", help="the same with calls at any time (0; 1)")
    parser.add_argument("--limit", type=int, metavar="N", help=f"stop after N states a scenario (default: {LIMIT:,})")
    parser.add_argument("--depth", type=int, metavar="N", help="look no further than N choices from the start")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="explorations at a time, a process each (1)")
    parser.add_argument("--deep", action="store_true", help="three faults, and no limit of states: hours")
    parser.add_argument(
        "--config", action="append", default=[], metavar="FIELD=VALUE", help="a field of utcp.Config, for both ends"
    )
    verbs = ", ".join(VERBS)
    parser.add_argument("--client", metavar="SCRIPT", help=f"a scenario of your own: steps apart by ';', of {verbs}")
    parser.add_argument("--server", metavar="SCRIPT", default="", help="the same for the server")
    parser.add_argument("--replay", metavar="CHOICES", help="draw the trace of one scenario as a ladder")
    return parser


def _scenarios(args: argparse.Namespace) -> list[Scenario]:
    if args.client is not None:
        return [Scenario("yours", "from the command line", args.client, args.server, graceful=False)]
    if args.replay is not None and len(args.scenario or ()) != 1:
        raise ValueError("--replay: needs one --scenario")
    return [SCENARIOS[name] for name in args.scenario or SCENARIOS]


def _setting(text: str) -> tuple[str, Any]:
    """``field=value``; the value as Python writes it."""
    name, found, value = text.partition("=")
    if not found or name not in Config.__dataclass_fields__:
        raise ValueError(f"--config {text}: not FIELD=VALUE with a field of Config")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        raise ValueError(f"--config {text}: {value!r} is no Python literal") from None


def _replay(scenario: Scenario, schedule: list[str], config: dict[str, Any]) -> int:
    violation = show_trace(scenario, schedule, config, World, sys.stdout)
    print(f"\n{violation}" if violation else "\nEvery invariant held on the way.")
    return 1 if violation else 0


if __name__ == "__main__":
    sys.exit(main())
