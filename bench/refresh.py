"""Times the refresh as a whole process on disk, on S3 and against the bare script, in turn, from servers on loopback.

make bench
.venv/bin/python bench/refresh.py --pairs 20
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bcw_assets.ml.table import admission, columns, rules
from bcw_assets_tests import seaweed
from bcw_assets_tests.loopback import body, serve
from bcw_assets_tests.tables import uci_form

HERE = Path(__file__).parent
IMPORTS = "import dagster._cli, bcw_assets; bcw_assets.defs"


@dataclass(frozen=True)
class Run:
    """One process: seconds of wall clock, and peak memory in MiB."""

    seconds: float
    mebibytes: float


def time_command(command: list[str], folder: Path, environment: dict[str, str]) -> Run:
    """Run a command to its end and return what the system says it took."""
    start = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"{command} failed with status {status}")
    return Run(seconds, usage.ru_maxrss / 1024)


def format_spread(values: list[float]) -> str:
    """Return minimum, median and maximum."""
    return f"min {min(values):5.2f}   median {statistics.median(values):5.2f}   max {max(values):5.2f}"


def main() -> None:
    """Print the ratio pair by pair, the peak memory of both, and where the refresh's time goes."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--pairs", type=int, default=7, help="counted pairs, after one that is not counted")
    pairs = parser.parse_args().pairs
    with (
        tempfile.TemporaryDirectory() as name,
        serve(body(uci_form())) as server,
        seaweed.run_server(Path(name) / "seaweed") as s3_server,
    ):
        folder = Path(name)
        home = folder / "home"
        home.mkdir()
        (home / "dagster.yaml").write_bytes((HERE.parent / ".dagster" / "dagster.yaml").read_bytes())
        (folder / "table.csv").write_bytes(uci_form())
        environment = os.environ | {"DAGSTER_HOME": str(home), "BCW_SOURCE": server.url, "BCW_STORAGE": str(folder)}
        on_s3 = environment | s3_server.environment | {"BCW_STORAGE": f"s3://{seaweed.BUCKET}/bench"}
        dagster = [sys.executable, "-m", "dagster", "asset", "materialize", "-m", "bcw_assets", "--select", "*"]
        bare = [sys.executable, str(HERE / "bare.py"), server.url, str(folder / "bare")]
        refreshes, remote, bares, imports, work = [], [], [], [], []
        for _ in range(pairs + 1):
            bares.append(time_command(bare, folder, environment))
            refreshes.append(time_command(dagster, folder, environment))
            remote.append(time_command(dagster, folder, on_s3))
            imports.append(time_command([sys.executable, "-c", IMPORTS], folder, environment).seconds)
            worked = subprocess.run(
                [sys.executable, str(HERE / "work.py"), "table.csv"],
                cwd=folder,
                env=environment,
                capture_output=True,
                check=True,
            )
            work.append(float(worked.stdout))
    total, imported, work_time = (
        statistics.median(times[1:]) for times in ([run.seconds for run in refreshes], imports, work)
    )
    print(f"refresh, s     {format_spread([run.seconds for run in refreshes[1:]])}")
    print(f"bare, s        {format_spread([run.seconds for run in bares[1:]])}")
    ratios = [ours.seconds / theirs.seconds for ours, theirs in zip(refreshes[1:], bares[1:], strict=True)]
    print(f"refresh / bare {format_spread(ratios)}   ({pairs} pairs)")
    print(f"on S3, s       {format_spread([run.seconds for run in remote[1:]])}")
    ratios = [there.seconds / here.seconds for there, here in zip(remote[1:], refreshes[1:], strict=True)]
    print(f"on S3 / disk   {format_spread(ratios)}   ({pairs} pairs)")
    print(f"peak memory    refresh {refreshes[-1].mebibytes:.0f} MiB, bare {bares[-1].mebibytes:.0f} MiB")
    print(
        f"the refresh    {imported / total:.0%} imports, {work_time / total:.0%} the stages' own work, "
        f"{1 - (imported + work_time) / total:.0%} Dagster, history, storing and checks"
    )


def time_rules() -> None:
    """Print how long the hard rules take for a million rows."""
    real = admission.read_table(uci_form(), "bench")
    million = real.sample(1_000_000, replace=True, random_state=0, ignore_index=True)
    values = {name: million[name].to_numpy() for name in columns.MEASUREMENTS}
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        rules.find_breaches(values, rules.HARD)
        seconds.append(time.perf_counter() - start)
    print(f"hard rules, s  {format_spread(seconds)}   (1,000,000 rows)")


if __name__ == "__main__":
    main()
    time_rules()
