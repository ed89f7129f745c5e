"""Injects faults into the package, and says which it survived, refused, lost, or broke at.

    python -m benchmarks.faults                                # all campaigns, about half an hour
    python -m benchmarks.faults files requests --seed 1 --out found.json
    python -m benchmarks.faults files --only 17                # one fault of a campaign again
    python -m benchmarks.faults --markdown found.json          # the table of docs/reliability.md

survived: the result is the right one, or the damage was said and mended. refused: exit code 1 or 2
and one line; nothing half-written stays. lost: finished work is gone, or a wrong result is taken
without a word. traceback: anything else, also a signal, a hang, or memory without bound. The exit
code is 1 if anything was lost or broke. Run it from the root of the repository; it writes to
temporary folders alone, and removes them.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.faults.core import KINDS, LOST, TRACEBACK, outcomes

CAMPAIGNS = ("kills", "files", "invocations", "requests", "malice", "folders")


def injected(name: str, count: int | None, seed: int, only: int | None) -> dict[str, Any]:
    """Runs a campaign, printing as it goes; its counts, and what was lost or broke."""
    campaign = importlib.import_module(f"benchmarks.faults.{name}")
    counts, bad, started = dict.fromkeys(KINDS, 0), [], time.monotonic()
    count = count or campaign.COUNT
    with tempfile.TemporaryDirectory(prefix=f"faults-{name}-") as folder:
        for number, what, outcome in outcomes(campaign, Path(folder), count, seed, only):
            counts[outcome.kind] += 1
            if only is not None:
                print(f"{what}: {outcome.kind}: {outcome.note}")
            elif outcome.kind in (LOST, TRACEBACK):
                again = f"python -m benchmarks.faults {name} --seed {seed} --count {count}"
                again += f" --only {number}" if hasattr(campaign, "faults") else ""
                bad.append({"fault": what, **vars(outcome), "again": again})
                print(f"  {outcome.kind}: {what}: {outcome.note}\n    {again}", flush=True)
    seconds = round(time.monotonic() - started)
    told = ", ".join(f"{kind} {number}" for kind, number in counts.items())
    print(f"{name}: {sum(counts.values())} faults in {seconds} s: {told}", flush=True)
    return {"title": campaign.TITLE, "counts": counts, "seconds": seconds, "bad": bad}


def markdown(document: dict[str, Any]) -> str:
    """The table of docs/reliability.md."""
    rows = ["| campaign | faults | survived | refused | lost | tracebacks |"]
    rows.append("| --- | ---: | ---: | ---: | ---: | ---: |")
    for found in document["campaigns"].values():
        numbers = [sum(found["counts"].values()), *found["counts"].values()]
        cells = " | ".join(f"{number:,}" for number in numbers)
        rows.append(f"| {found['title']} | {cells} |")
    versions = ", ".join(f"{key} {value}" for key, value in document["versions"].items())
    seconds = sum(found["seconds"] for found in document["campaigns"].values())
    told = f"seed {document['seed']}, {versions}, {document['cores']} CPU cores, {seconds / 60:.0f}"
    return "\n".join([*rows, "", f"`{document['command']}`: {told} min."])


def main() -> int:
    """Parses the arguments and runs the campaigns."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.faults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("campaigns", nargs="*", metavar="CAMPAIGN", help=", ".join(CAMPAIGNS))
    parser.add_argument("--count", type=int, help="faults of each campaign  [default: its own]")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn  [default: 0]")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="one fault of one campaign")
    parser.add_argument("--out", type=Path, help="JSON file; what it has of others is kept")
    parser.add_argument("--markdown", type=Path, metavar="JSON", help="print its table; run none")
    options = parser.parse_args()
    if options.markdown:
        print(markdown(json.loads(options.markdown.read_text())))
        return 0
    if unknown := set(options.campaigns) - set(CAMPAIGNS):
        parser.error(f"no campaign is named {', '.join(sorted(unknown))}")

    from bcgan_tf.runs.environment import environment

    found: dict[str, Any] = {}
    if options.out and options.out.exists():
        found = json.loads(options.out.read_text())["campaigns"]
    chosen = options.campaigns or CAMPAIGNS
    bad = False
    for name in chosen:
        found[name] = injected(name, options.count, options.seed, options.only)
        bad = bad or bool(found[name]["bad"])
        if options.out and options.only is None:
            versions = {k: v for k, v in environment().items() if k in _VERSIONS}
            document = {
                "command": f"python -m benchmarks.faults --seed {options.seed}",
                "seed": options.seed,
                "versions": versions,
                "cores": len(os.sched_getaffinity(0)),
                "campaigns": {key: found[key] for key in CAMPAIGNS if key in found},
            }
            options.out.write_text(json.dumps(document, indent=2) + "\n")
    return int(bad)


_VERSIONS = ("bcgan_tf", "tensorflow", "keras", "python")

if __name__ == "__main__":
    sys.exit(main())
