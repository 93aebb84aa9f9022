"""How the refresh grows with the rows: CPU seconds of each stage with its checks, and the peak memory of the process.

Beside it a bare script of the same stages (`bare_rows.py`), each with one thread of linear algebra: more of them would
wait for each other, and waiting is CPU time.

make bench
.venv/bin/python bench/rows.py 569 5000 100000
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from bcw_assets.ml.model.resampling import choose_repeats
from bcw_assets.ml.table import admission, canonical, columns
from bcw_assets.storage.formats import MOST_ROWS_OF_CSV
from bcw_assets_tests.tables import rows_as_uci, uci_form

HERE = Path(__file__).parent
ROWS = (569, 5_000, 100_000, 1_000_000)
NOISE = 0.02  # relative; of families that no rule ties to another
STAGES = ("start-up", "raw_data", "ready_data", "model", "cross_validation", "metrics", "release", "all")
NAMES = (*STAGES, "MiB", "bare", "ratio")
FAMILIES = ("texture", "smoothness", "symmetry")
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OPENBLAS", "MKL", "OMP")}


def main() -> None:
    """Print one line for each number of rows, and how the time grows from the first of 5,000 rows or more to the last.

    The exponent is 1 where ten times the rows take ten times as long.
    """
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("rows", type=int, nargs="*", default=ROWS)
    print("CPU seconds of a first refresh, checks included, its peak memory, and CPU seconds of the bare script")
    print("  ".join(f"{name:>9}" for name in ("rows", *NAMES)))
    totals: dict[int, float] = {}
    for rows in parser.parse_args().rows:
        spent = measure(rows)
        totals[rows] = spent["all"]
        print(f"{rows:9,}  " + "  ".join(f"{spent[name]:{max(9, len(name))}.2f}" for name in NAMES), flush=True)
    large = [rows for rows in totals if rows >= 5_000]
    if len(large) > 1:
        exponent = math.log(totals[large[-1]] / totals[large[0]]) / math.log(large[-1] / large[0])
        print(f"exponent of the CPU time over the rows, {large[0]:,} to {large[-1]:,}: {exponent:.2f}")


def measure(rows: int) -> dict[str, float]:
    """Refresh a table of so many rows in an empty folder, and return what it took, and what the bare script takes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = folder / "table.csv"
        table.write_bytes(uci_form() if rows == 569 else grow(rows))
        places = {"DAGSTER_HOME": name, "BCW_SOURCE": str(table), "BCW_STORAGE": name}
        spent: dict[str, float] = json.loads(run_script("refresh_once.py", places)[0])
        (folder / "bare").mkdir()
        arguments = [table, folder / "bare", choose_repeats(rows), MOST_ROWS_OF_CSV]
        spent["bare"] = run_script("bare_rows.py", ONE_THREAD, *arguments)[1]
        return spent | {"ratio": spent["all"] / spent["bare"]}


def run_script(script: str, places: dict[str, str], *arguments: object) -> tuple[str, float]:
    """Run a script of this folder, and return what it prints and the CPU seconds that it takes."""
    before = os.times()
    command = [sys.executable, str(HERE / script), *map(str, arguments)]
    done = subprocess.run(command, env=os.environ | places, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{script} failed: {done.stderr}")
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return done.stdout, spent


def grow(rows: int) -> bytes:
    """Return a table of so many patients in UCI's form: each is a real one with a little noise."""
    real = admission.read_table(uci_form(), "bench")
    random = np.random.default_rng(0)
    picked = random.integers(0, len(real), rows)
    numbers = real[list(columns.MEASUREMENTS)].to_numpy()[picked]
    for family in FAMILIES:
        of_family = [name.startswith(family) for name in columns.MEASUREMENTS]
        numbers[:, of_family] *= 1 + NOISE * random.uniform(-1, 1, (rows, 1))
    ids = [str(10_000_000 + row) for row in range(rows)]
    return rows_as_uci(ids, numbers.round(7), canonical.read_truths(real)[picked] == 1)


if __name__ == "__main__":
    main()
