"""The steps of a run on a GPU machine, called by `benchmarks/gpu_suite.sh`; see docs/gpu.md.

Each step imports whatever needs more than Python itself: before `setup` the machine has torch and
little else.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.gpu import record
from harness.scenario.devices import AUTO, SHARING

SMOKE = ("scenarios/gpu/pinned-memory.yaml",)
SHARED = ("scenarios/gpu/ranks-share-a-gpu.yaml",)
ALL = "scenarios/"
SIZES = ("50", "500", "many")


def _pack(asked: argparse.Namespace) -> None:
    from benchmarks.gpu.pack import pack

    names = pack(asked.wheels, asked.python)
    size = sum((asked.wheels / name).stat().st_size for name in names) / 1e6
    record.write(asked.out, "pack", {"wheels": names}, f"{len(names)} wheels, {size:.1f} MB")


def _setup(asked: argparse.Namespace) -> None:
    from benchmarks.gpu.pack import install

    site = install(asked.wheels)
    record.write(
        asked.out, "setup", {}, f"{len(list(site.glob('*.dist-info')))} packages installed"
    )


def _smoke(asked: argparse.Namespace) -> None:
    from benchmarks.gpu import suite
    from harness.run.support import missing

    wish = suite.SuiteOptions(
        step="smoke",
        device=asked.device,
        tests=suite.collect(asked.device, *SMOKE),
        workers=1,
        environment={},
        limit_s=asked.limit,
    )
    found = suite.run(wish, asked.out) | {"missing": missing()}
    record.write(asked.out, "smoke", found, f"missing: {missing()}\n{suite.describe_suite(found)}")


def _sharing(asked: argparse.Namespace) -> None:
    from benchmarks.gpu import collectives, suite

    found, lines = {}, []
    for way in SHARING:
        tried = collectives.try_all(asked.device, way)
        wish = suite.SuiteOptions(
            step=f"sharing-{way}",
            device=asked.device,
            tests=suite.collect(asked.device, *SHARED),
            workers=1,
            environment={"KEMPNERFORGE_GPU_SHARING": way},
            limit_s=asked.limit / 5,
        )
        ran = suite.run(wish, asked.out)
        found[way] = {"collectives": tried, "scenarios": ran}
        lines += [f"{way}: {name}: {verdict}" for name, verdict in tried.items()]
        lines += [f"{way}: {suite.describe_suite(ran)}"]
    record.write(asked.out, "sharing", found, "\n".join(lines))


def _suite(asked: argparse.Namespace) -> None:
    from benchmarks.gpu import suite

    tests = suite.part(suite.collect(asked.device, ALL), asked.part, asked.of)
    if asked.go_on:
        tests = suite.left(tests, asked.out.glob(f"suite-{asked.device}-*.xml"))
    tests = tuple(test for test in tests if not test.startswith(tuple(asked.without)))
    kind = f"suite-{asked.device}-{asked.sharing}-{asked.part}of{asked.of}"
    step = f"{kind}-{len(list(asked.out.glob(f'{kind}-*.xml'))) + 1}"
    wish = suite.SuiteOptions(
        step=step,
        device=asked.device,
        tests=tests,
        workers=asked.workers,
        environment={
            "KEMPNERFORGE_GPU_JOBS": str(asked.jobs),
            "KEMPNERFORGE_GPU_SHARING": asked.sharing,
        },
        limit_s=asked.limit,
    )
    found = suite.run(wish, asked.out)
    record.write(asked.out, step, found, suite.describe_suite(found))


def _compare(asked: argparse.Namespace) -> None:
    from benchmarks.gpu.compare import compare, describe_comparison

    found = compare(*(asked.out.glob(f"suite-{device}-*.xml") for device in ("cpu", "cuda")))
    record.write(asked.out, "compare", found, describe_comparison(found))


def _checkpoint(asked: argparse.Namespace) -> None:
    from benchmarks.checkpoint import measure
    from benchmarks.tables import Times, describe_times

    repeats = (asked.repeat, asked.loops, ("kempnerforge", "THREAD", "floor"))
    found: dict[str, Times] = {}
    with tempfile.TemporaryDirectory() as home:
        for size in asked.sizes:
            found[size] = measure(size, repeats, asked.device, Path(home, size))
            measured = {
                one: {f"{kind}: {name}": values for (kind, name), values in times.items()}
                for one, times in found.items()
            }
            text = describe_times(found, budgets=asked.device == "cpu")
            record.write(asked.out, "checkpoint", {"device": asked.device, "sizes": measured}, text)


STEPS: dict[str, Callable[[argparse.Namespace], None]] = {
    "pack": _pack,
    "setup": _setup,
    "smoke": _smoke,
    "sharing": _sharing,
    "suite": _suite,
    "compare": _compare,
    "checkpoint": _checkpoint,
}


def main() -> None:
    """Do one step."""
    parser = argparse.ArgumentParser(prog="gpu_suite.sh", description=__doc__)
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("part", type=int, nargs="?", default=1, help="of `suite`")
    parser.add_argument("of", type=int, nargs="?", default=1, help="how many parts it has")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--sharing", choices=(AUTO, *SHARING), default=AUTO)
    parser.add_argument("--jobs", type=int, default=4, help="of `suite`: at once on one GPU")
    parser.add_argument("--workers", type=int, default=6, help="of `suite`")
    parser.add_argument(
        "--go-on", action="store_true", help="of `suite`: leave out what passed in earlier results"
    )
    parser.add_argument(
        "--without", nargs="+", default=[], metavar="PLACE", help="of `suite`: leave these out"
    )
    parser.add_argument("--repeat", type=int, default=5, help="of `checkpoint`")
    parser.add_argument("--loops", type=int, default=4, help="of `checkpoint`")
    parser.add_argument("--sizes", nargs="+", default=SIZES, help="of `checkpoint`")
    parser.add_argument("--limit", type=float, default=540.0, help="seconds for the scenarios")
    parser.add_argument("--python", default="3.12", help="of `pack`: the Python of the machine")
    parser.add_argument("--wheels", type=Path, default=Path("gpu-wheels"))
    parser.add_argument("--out", type=Path, default=Path("gpu-results"))
    asked = parser.parse_args()
    STEPS[asked.step](asked)


if __name__ == "__main__":
    main()
