"""The canonical table: its text, and the identity of patients and of tables."""

import hashlib

import numpy as np
import pandas as pd

from bcw_assets.ml.table import admission, canonical, columns
from bcw_assets.ml.table.identity import format_number, hash_row, round_values
from bcw_assets_tests.ml.table.test_forms import with_numbers
from bcw_assets_tests.tables import uci_form

MEASUREMENTS = list(columns.MEASUREMENTS)


def test_without_its_header_the_written_table_is_ucis_file_byte_for_byte(raw: pd.DataFrame) -> None:
    header, _, rest = canonical.write_table(raw).partition(b"\n")
    assert header.decode() == ",".join(columns.RAW)
    assert rest == uci_form()


def test_rows_come_sorted_by_id_as_text_and_an_id_keeps_its_comma(raw: pd.DataFrame) -> None:
    ids = ["2", "a,1", *map(str, range(1000, 1567))]
    table = admission.read_table(canonical.write_table(raw.assign(id=ids)), "ids.csv")
    assert table["id"].tolist() == sorted(ids)
    pd.testing.assert_series_equal(table.loc[table["id"] == "a,1"].iloc[0, 1:], raw.iloc[1, 1:], check_names=False)


def test_a_row_fingerprint_is_the_hash_of_ucis_line_after_the_id(raw: pd.DataFrame) -> None:
    first = uci_form().partition(b"\n")[0].partition(b",")[2]
    assert canonical.fingerprint_rows(raw)[0] == hashlib.sha256(first).hexdigest()


def test_numbers_of_any_size_are_written_in_whole_columns_as_one_by_one(raw: pd.DataFrame) -> None:
    random = np.random.default_rng(0)
    numbers = raw[MEASUREMENTS] * 10 ** random.uniform(-12, 18, (len(raw), len(MEASUREMENTS)))
    table = with_numbers(raw, numbers.mask(random.random(numbers.shape) < 0.1, 0.0))
    lines = canonical.write_table(table).decode().splitlines()[1:]
    for (_, diagnosis, *row), line, patient in zip(
        table.itertuples(index=False), lines, canonical.fingerprint_rows(table), strict=True
    ):
        assert line.split(",")[2:] == list(map(format_number, row))
        assert patient == hash_row([diagnosis, *map(format_number, round_values(np.array(row)).tolist())])


def test_the_fingerprint_knows_rows_and_not_ids(raw: pd.DataFrame) -> None:
    assert canonical.fingerprint(raw) == canonical.UCI_FINGERPRINT
    assert canonical.fingerprint(raw.assign(id=raw["id"] + "0")) == canonical.UCI_FINGERPRINT
    assert canonical.fingerprint(raw.iloc[1:]) != canonical.UCI_FINGERPRINT
    assert canonical.fingerprint(raw.assign(area_se=raw["area_se"].shift(fill_value=1))) != canonical.UCI_FINGERPRINT


def test_noise_makes_no_stranger_and_a_sixth_digit_does(raw: pd.DataFrame) -> None:
    numbers, patients = raw[MEASUREMENTS], canonical.fingerprint_rows(raw)
    noises = numbers.astype("float32").astype(float), np.nextafter(numbers, -1), numbers * 10 / 10, numbers - 1e-17
    for noisy in noises:
        assert canonical.fingerprint_rows(with_numbers(raw, noisy)) == patients
    other = canonical.fingerprint_rows(with_numbers(raw, numbers * (1 + 1e-5)))
    assert not set(patients) & set(other)
    minus_zero = raw.assign(concavity_mean=raw["concavity_mean"].where(raw["concavity_mean"] > 0, -0.0))
    assert canonical.fingerprint_rows(minus_zero) == patients


def test_the_check_of_the_source_warns_of_columns_that_were_left_out(raw: pd.DataFrame) -> None:
    facts = {"source": "table.csv", "chosen by the user": True}
    assert canonical.check_source(raw, facts).problems == ()
    (problem,) = canonical.check_source(raw, facts | {canonical.LEFT_OUT: "age, Y"}).problems
    assert problem == "columns were left out that the model has no use for: age, Y"
