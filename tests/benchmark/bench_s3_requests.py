"""Counts requests and bytes of a sweep kept in S3: python -m tests.benchmark.bench_s3_requests

By difference of two sweeps, so that what is asked once a sweep does not count; of a mock server on
loopback, so that only the numbers mean anything, and no times. Pools have 120 items and the
model 28 weights: the bytes are those of records, and of arrays that are next to empty.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from orchestrator import cli
from tests.helpers.s3_server import BUCKET, Proxy, moto, use
from tests.helpers.small_sweep import SPEC, write_data

SEEDS = (2, 6)
STAGES = 5
"""Of one seed, in two trials; one of them is shared."""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, moto() as endpoint, Proxy(endpoint) as proxy:
        os.chdir(folder)
        os.environ["ORCHESTRATE_CACHE"] = f"{folder}/cache"
        write_data(Path("features.npz"))
        took: dict[str, list[dict[str, int]]] = {}
        moved: dict[str, list[dict[str, int]]] = {}
        for seeds in SEEDS:
            text = SPEC.replace("seeds: [0]", f"seeds: {list(range(seeds))}")
            Path("spec.yaml").write_text(text)
            address = f"s3://{BUCKET}/{seeds}"
            with use(proxy.endpoint):
                for words in (
                    ["sweep", "spec.yaml", "--engine", "inline", "--out", address],
                    ["resume", address],
                    ["status", address],
                    ["report", address],
                    ["ledger", "verify", address],
                ):
                    proxy.forget()
                    assert cli.main(words) == 0
                    moved.setdefault(words[0], []).append(dict(proxy.bytes))
                    lists = sum(m == "GET" and "list-type=2" in path for m, path in proxy.seen)
                    took.setdefault(" ".join(words[:1]), []).append(
                        {**proxy.counts, "LIST": lists, "GET": proxy.counts["GET"] - lists}
                    )
    stages = STAGES * (SEEDS[1] - SEEDS[0])
    print("\nverb     fixed  a stage  (kinds a stage)")
    for verb, (few, many) in took.items():
        each = {kind: (many[kind] - few.get(kind, 0)) / stages for kind in many}
        total = sum(each.values())
        fixed = sum(few.values()) - total * STAGES * SEEDS[0]
        kinds = ", ".join(f"{kind} {value:.1f}" for kind, value in sorted(each.items()))
        up, down = (
            (moved[verb][1].get(way, 0) - moved[verb][0].get(way, 0)) / stages / 1024
            for way in ("up", "down")
        )
        print(f"{verb:8s} {fixed:5.0f}  {total:7.1f}  ({kinds}; {up:.1f} KiB up, {down:.1f} down)")


if __name__ == "__main__":
    main()
