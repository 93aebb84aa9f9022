"""Times `bcw predict IN/ -o OUT/` as a whole command with more and more processes, and measures their memory.

make bench
.venv/bin/python bench/folder.py --files 8 --rows 50000 --workers 1 2 --kind parquet
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
from predict import BCW, release, write
from refresh import time_command

from bcw_assets.ml.table import admission
from bcw_assets_tests.tables import uci_form

PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stderr=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def main() -> None:
    """Print seconds, rows a second, and how many times as fast each number of processes is as the first."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--files", type=int, default=64)
    parser.add_argument("--rows", type=int, default=250_000, help="of each file")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--kind", choices=["csv", "parquet"], default="csv")
    parser.add_argument("--rounds", type=int, default=2, help="of which the fastest counts")
    asked = parser.parse_args()
    real = admission.read_table(uci_form(), "bench")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        release(real, folder)
        (folder / "in").mkdir()
        first = folder / "in" / f"0.{asked.kind}"
        write(real, folder / "rows", asked.rows)
        if asked.kind == "csv":
            (folder / "rows").rename(first)
        else:
            pd.read_csv(folder / "rows").to_parquet(first)
        for number in range(1, asked.files):  # links: what is measured is not the disk
            os.link(first, first.with_name(f"{number}.{asked.kind}"))
        environment, fastest = os.environ | {"BCW_STORAGE": name}, {}
        for workers in asked.workers:
            commands = [
                [str(BCW), "predict", "in", "-o", f"out-{workers}-{round_}/", "--workers", str(workers)]
                for round_ in range(asked.rounds)
            ]
            fastest[workers] = min(time_command(command, folder, environment).seconds for command in commands)
            ratio, rate = fastest[asked.workers[0]] / fastest[workers], asked.files * asked.rows / fastest[workers]
            print(f"{workers} processes: {fastest[workers]:.1f} s, {rate:,.0f} rows/s, {ratio:.2f} x", flush=True)
        command = [sys.executable, "-c", PEAK, *commands[0][:4], "out/"]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=True)
        print(f"peak memory of a process: {int(done.stdout) / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
