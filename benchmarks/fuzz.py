"""The whole OpenAPI document against a service that has a past: made-up requests, each answer as documented, never a 5xx.

`python -m benchmarks.fuzz` asks more than 10,000 times; with `--quick` a tenth of that.
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.fuzzing import past
from benchmarks.fuzzing.run import Found, run

EXAMPLES, SCENARIOS = 120, 1_200
QUICK_EXAMPLES, QUICK_SCENARIOS = 5, 30


def main() -> int:
    """Makes the past, starts the service, asks, tells."""
    asked = _arguments()
    sizes = (QUICK_EXAMPLES, QUICK_SCENARIOS) if asked.quick else (EXAMPLES, SCENARIOS)
    with tempfile.TemporaryDirectory(prefix="barprop-") as name, past.served(Path(name)) as url:
        found = run(url, *sizes, seed=asked.seed)
    _show(found, asked.json)
    return 1 if found.failures or found.errors else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the requests")
    parser.add_argument("--seed", type=int, default=12, help="of the requests; else 12")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    return parser.parse_args()


def _show(found: Found, as_json: bool) -> None:
    failed = Counter(failure.operation for failure in found.failures)
    if as_json:
        print(json.dumps({
            "cases": found.cases.total(), "operations": dict(found.cases), "successes": dict(found.done), "phases": dict(found.phases),
            "statuses": dict(sorted(found.statuses.items())), "failures": [vars(each) for each in found.failures],
            "errors": found.errors,
        }))  # fmt: skip
        return
    table = Table("operation", "cases", "successes", "failures", title="fuzz")
    for operation, cases in sorted(found.cases.items()):
        table.add_row(operation, f"{cases:,}", f"{found.done[operation]:,}", str(failed[operation]))
    table.add_section()
    totals = (f"{counted.total():,}" for counted in (found.cases, found.done))
    table.add_row(f"{len(found.cases)} operations", *totals, str(len(found.failures)))
    console = Console()
    console.print(table)
    for title, counted in (("by phase", found.phases), ("by status", found.statuses)):
        print(f"{title}: " + ", ".join(f"{key} {count:,}" for key, count in sorted(counted.items())))
    for failure in {(each.operation, each.check): each for each in found.failures}.values():
        print(f"\n{failure.operation}, {failure.check}: {failure.message}\n  {failure.again}")
    for error in found.errors:
        print(f"\n{error}")


if __name__ == "__main__":
    sys.exit(main())
