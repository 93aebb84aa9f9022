"""How the refresh grows with the rows: CPU seconds of each stage with its checks, and the peak memory of the process.

make bench
.venv/bin/python bench/rows.py 569 5000 100000
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from bcw_assets.ml.table import admission, canonical, columns
from bcw_assets_tests.tables import rows_as_uci, uci_form

HERE = Path(__file__).parent
ROWS = (569, 5_000, 20_000, 100_000)
NOISE = 0.02  # relative; of families that no rule ties to another
SPENT = ("start-up", "raw_data", "ready_data", "model", "cross_validation", "metrics", "release", "all", "MiB")
FAMILIES = ("texture", "smoothness", "symmetry")


def main() -> None:
    """Print one line for each number of rows."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("rows", type=int, nargs="*", default=ROWS)
    print("CPU seconds of a first refresh, checks included, and its peak memory")
    print("  ".join(f"{name:>8}" for name in ("rows", *SPENT)))
    for rows in parser.parse_args().rows:
        spent = measure(rows)
        print(f"{rows:8,}  " + "  ".join(f"{spent[name]:{max(8, len(name))}.2f}" for name in SPENT), flush=True)


def measure(rows: int) -> dict[str, float]:
    """Refresh a table of so many rows in an empty folder, and return what it took."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "table.csv").write_bytes(uci_form() if rows == 569 else grow(rows))
        (folder / "dagster.yaml").write_bytes((HERE.parent / ".dagster" / "dagster.yaml").read_bytes())
        places = {"DAGSTER_HOME": name, "BCW_SOURCE": str(folder / "table.csv"), "BCW_STORAGE": name}
        done = subprocess.run(
            [sys.executable, str(HERE / "refresh_once.py")],
            env=os.environ | places,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"The refresh of {rows} rows failed: {done.stderr}")
        spent: dict[str, float] = json.loads(done.stdout)
        return spent


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
    return rows_as_uci(ids, numbers.round(7), canonical.malignant(real)[picked] == 1)


if __name__ == "__main__":
    main()
