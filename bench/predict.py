"""Times `bcw predict` as a whole process against the bare script, in turn: one row, and a million.

make bench
.venv/bin/python bench/predict.py --pairs 5
"""

import argparse
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from refresh import Run, format_spread, time_command

from bcw_assets.ml.evaluation.report import Evaluation, evaluate
from bcw_assets.ml.model import preparation, resampling, training
from bcw_assets.ml.model.preparation import Split
from bcw_assets.ml.model.resampling import Resampling
from bcw_assets.ml.table import admission, columns
from bcw_assets.releases import promotion
from bcw_assets.releases.candidate import Candidate
from bcw_assets.storage.folder import FolderStore
from bcw_assets_tests.tables import uci_form

HERE = Path(__file__).parent
BCW = Path(sys.executable).with_name("bcw")
ROWS = 1_000_000
PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def main() -> None:
    """Print the ratios pair by pair, the rows a second, and the peak memory of one and of four million rows."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--pairs", type=int, default=3, help="counted pairs, after one that is not counted")
    pairs = parser.parse_args().pairs
    real = admission.read_table(uci_form(), "bench")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        release(real, folder)
        write(real.head(1), folder / "one.csv", 1)
        seconds = compare_times(folder, "one.csv", None, 3 * pairs)
        print(f"one row: predict / bare       {seconds}")
        for label, table in (("with", real), ("without", real.drop(columns=columns.DIAGNOSIS))):
            write(table, folder / "many.csv", ROWS)
            seconds = compare_times(folder, "many.csv", "out.csv", pairs)
            print(f"{ROWS:,} rows {label} diagnoses: predict / bare {seconds}")
        text = (folder / "many.csv").read_text()
        (folder / "many.csv").write_text(text.replace(",", ";").replace(".", ","))
        seconds = compare_times(folder, "many.csv", "out.csv", pairs, "decimal-comma")
        print(f"{ROWS:,} rows with semicolons and decimal commas: predict / bare {seconds}")
        peaks = []
        for count in (ROWS, 4 * ROWS):
            write(real, folder / "many.csv", count)
            peaks.append(f"{measure_peak(folder):.0f} MiB for {count:,} rows")
        print(f"peak memory    {', '.join(peaks)}")


def release(real: pd.DataFrame, folder: Path) -> None:
    """Write the release that scores, and the pipeline for the bare script."""
    ready = preparation.prepare(real, Split(0.2, 42, stratify=False))
    model = training.train(ready, 1.0)
    predicted = resampling.predict_out_of_fold(real, model, Resampling(10, 1, 0))
    metrics = Evaluation(evaluate(real, ready, model, predicted), b"", "")
    promotion.promote(FolderStore(folder), Candidate(real, ready, model, predicted, metrics), [], "bench")
    (folder / "model.pkl").write_bytes(pickle.dumps(model))


def write(real: pd.DataFrame, path: Path, count: int) -> None:
    """Write the real rows again and again, each time with a texture a little smaller, so that no two are the same."""
    lines = real.to_csv(index=False, header=False).splitlines()
    place = list(real.columns).index("texture_mean")
    parts = [(fields[1:place], fields[place], fields[place + 1 :]) for fields in (line.split(",") for line in lines)]
    ready = [(",".join(["", *first, ""]), float(texture), ",".join(["", *rest])) for first, texture, rest in parts]
    smaller = 1 - np.random.default_rng(0).random(count) / 1000
    with path.open("w") as file:
        file.write(",".join(real.columns) + "\n")
        for row, factor in enumerate(smaller):
            first, texture, rest = ready[row % len(ready)]
            file.write(f"{row:07}{first}{texture * factor:.6f}{rest}\n")


def compare_times(folder: Path, source: str, target: str | None, pairs: int, *options: str) -> str:
    """Return the ratios of seconds, and the rows a second of both."""
    ours, theirs = [], []
    for _ in range(pairs + 1):
        theirs.append(time_bare(folder, source, target, *options))
        ours.append(time_predict(folder, source, target))
    ratios = [mine.seconds / other.seconds for mine, other in zip(ours[1:], theirs[1:], strict=True)]
    seconds = [min(run.seconds for run in runs[1:]) for runs in (ours, theirs)]
    return f"{format_spread(ratios)}   ({pairs} pairs; fastest {seconds[0]:.2f} s and {seconds[1]:.2f} s)"


def time_bare(folder: Path, source: str, target: str | None, *options: str) -> Run:
    """Run the bare script."""
    more = [target, *options] if target else []
    return time_command(
        [sys.executable, str(HERE / "bare_predict.py"), "model.pkl", source, *more], folder, dict(os.environ)
    )


def time_predict(folder: Path, source: str, target: str | None) -> Run:
    """Run `bcw predict`."""
    command = [str(BCW), "predict", source, *(["-o", target] if target else [])]
    return time_command(command, folder, os.environ | {"BCW_STORAGE": str(folder)})


def measure_peak(folder: Path) -> float:
    """Return the peak memory of scoring many.csv in MiB, from a small process: a child begins with its parent's."""
    command = [sys.executable, "-c", PEAK, str(BCW), "predict", "many.csv", "-o", "out.csv"]
    environment = os.environ | {"BCW_STORAGE": str(folder)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=True)
    return float(done.stdout) / 1024


if __name__ == "__main__":
    main()
