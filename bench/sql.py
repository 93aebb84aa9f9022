"""Times model.sql in DuckDB, from Parquet to Parquet: rows a second, and CPU seconds.

make bench
.venv/bin/python bench/sql.py --rows 10_000_000
"""

import argparse
import tempfile
import time

import duckdb

from bcw_assets.ml.model import numbers, preparation, sql, training
from bcw_assets.ml.model.preparation import Split
from bcw_assets.ml.table import admission, columns
from bcw_assets_tests.tables import uci_form

THREADS = 2
NOISE = ", ".join(f"{name} * (1 + random() / 1000) AS {name}" for name in columns.MEASUREMENTS)


def main() -> None:
    """Print the rows a second of three tries."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    rows = parser.parse_args().rows
    real = admission.read_table(uci_form(), "bench")
    model = training.train(preparation.prepare(real, Split(0.2, 42, stratify=False)), 1.0)
    query = sql.write_query(numbers.Scorer.load(numbers.dump_model(model)))
    with tempfile.TemporaryDirectory() as folder, duckdb.connect(config={"threads": THREADS}) as database:
        database.register("real", real)
        million = f"SELECT id, {NOISE} FROM real, range({rows // len(real) + 1}) LIMIT {rows}"
        database.execute(f"COPY ({million}) TO '{folder}/rows.parquet'")
        scores = f"WITH measurements AS (FROM '{folder}/rows.parquet') SELECT id, probability_malignant FROM ({query})"
        for _ in range(3):
            start, cpu_start = time.perf_counter(), time.process_time()
            database.execute(f"COPY ({scores}) TO '{folder}/scores.parquet'")
            seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
            print(
                f"model.sql in DuckDB, {THREADS} threads: {rows / seconds / 1e6:.1f} M rows/s"
                f"   ({rows:,} rows; {seconds:.2f} s, {cpu_seconds:.2f} CPU s)"
            )


if __name__ == "__main__":
    main()
