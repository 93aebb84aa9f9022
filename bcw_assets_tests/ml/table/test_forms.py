"""The forms of the table that people have: what each gives, and what is said of those that are refused."""

import bz2
import csv
import gzip
import io
import lzma
import pickle
import re
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from bcw_assets.errors import TableError
from bcw_assets.ml.table import admission, canonical, columns, reading
from bcw_assets_tests.tables import shuffled, uci_form

MEASUREMENTS = list(columns.MEASUREMENTS)
Form = Callable[[pd.DataFrame], bytes]
TWO_WORDS = ("concave points", "fractal dimension")
WORDS = ("mean", "se", "worst")
FILES = yaml.safe_load(Path(__file__).with_name("forms.yaml").read_text())


def names(template: str, words: Iterable[str] = WORDS, two_words: Iterable[str] = TWO_WORDS) -> dict[str, str]:
    """Return our name of each measurement → theirs, from a template of family and statistic."""
    theirs = dict(zip((*columns.STATISTICS, "concave_points", "fractal_dimension"), (*words, *two_words), strict=True))
    parts = [name.rpartition("_")[::2] for name in MEASUREMENTS]
    return {f"{part}_{word}": template.format(theirs.get(part, part), theirs[word]) for part, word in parts}


def table(
    without: Iterable[str] = (),
    assign: dict[str, Any] | None = None,
    rename: dict[str, str] | None = None,
    **options: Any,
) -> Form:
    """Return what writes the table by pandas: without and with columns, some of them renamed, by options of to_csv."""

    def write(raw: pd.DataFrame) -> bytes:
        frame = raw.assign(**assign or {}).drop(columns=list(without)).rename(columns=rename or {})
        return bytes(frame.to_csv(**{"index": False, **options}).encode())

    return write


def office(program: str) -> Form:
    """Return what writes the table as a program of an office does."""
    members = {name: jinja2.Template(text) for name, text in FILES["workbooks"][program].items()}

    def write(raw: pd.DataFrame) -> bytes:
        cells = [raw.columns.tolist(), *raw.to_numpy().tolist()]
        return zipped({name: template.render(cells=cells) for name, template in members.items()})

    return write


def zipped(files: dict[str, str | bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def pack(name: str, *others: str) -> Form:
    """Return what puts UCI's file in a zip, beside others."""
    return lambda raw: zipped({name: uci_form(), **dict.fromkeys(others, "about it")})


def parquet(frame: pd.DataFrame, *, index: bool | None = False) -> bytes:
    file = io.BytesIO()
    frame.to_parquet(file, index=index)
    return file.getvalue()


def lines(pattern: str, by: str = "") -> Form:
    """Return what replaces in every line of UCI's file."""
    return lambda raw: re.sub(pattern.encode(), by.encode(), uci_form(), flags=re.MULTILINE)


def labels(malignant: object, benign: object) -> Callable[[pd.DataFrame], "pd.Series[Any]"]:
    return lambda raw: raw["diagnosis"].map({"M": malignant, "B": benign})


def with_numbers(raw: pd.DataFrame, numbers: Any) -> pd.DataFrame:
    """Return the table with other measurements."""
    return raw.assign(**dict(zip(MEASUREMENTS, np.asarray(numbers).T, strict=True)))


def measured(change: Callable[[pd.DataFrame], Any]) -> Form:
    """Return what writes other numbers."""
    return lambda raw: canonical.write_table(with_numbers(raw, change(raw[MEASUREMENTS])))


def there_and_back(scaler: StandardScaler | MinMaxScaler) -> Form:
    return measured(lambda numbers: scaler.fit(numbers).inverse_transform(scaler.transform(numbers)))


def scikit_learn(raw: pd.DataFrame) -> bytes:
    frame: pd.DataFrame = load_breast_cancer(as_frame=True).frame
    return frame.to_csv(index=False).encode()


def kaggle(raw: pd.DataFrame) -> bytes:
    """Return Kaggle's file: quotes, spaces in some names, CRLF, and a header with a comma too many."""
    header = ",".join(f'"{name.replace("concave_points", "concave points")}"' for name in columns.RAW)
    return (header + ",\r\n" + uci_form().decode().replace("\n", "\r\n")).encode()


SCIKIT = names("{1} {0}") | {
    name: f"{name[:-3].replace('_', ' ')} error" for name in MEASUREMENTS if name.endswith("_se")
}
NUMBERED = {name: str(number) for number, name in enumerate(columns.RAW)}
LETTERS = {name: chr(97 + number % 26) * (1 + number // 26) for number, name in enumerate(columns.RAW)}
GERMAN = str.maketrans("_.", ".,")
V = {name: f"V{number}" for number, name in enumerate(MEASUREMENTS, 1)}

WITH_IDS: dict[str, Form] = {
    "UCI's file": lambda raw: uci_form(),
    "UCI's API": table(
        rename=names("{0}{1}", "123", ("concave_points", "fractal_dimension")) | {"id": "ID", "diagnosis": "Diagnosis"}
    ),
    "Kaggle": kaggle,
    "Kaggle, filled": lambda raw: kaggle(raw).replace(b"\r\n", b",NA\r\n").replace(b",,NA", b",", 1),
    "ours": canonical.write_table,
    "with probabilities": table(assign={"probability_malignant": "yes"}),
    "in another order": lambda raw: (
        raw[[*np.random.default_rng(0).permutation(raw.columns)]].to_csv(index=False).encode()
    ),
    "rows in another order": lambda raw: shuffled(uci_form()),
    "an empty first column": lambda raw: re.sub(rb"^", b",", canonical.write_table(raw), flags=re.MULTILINE),
    "a header of 0.0, 1.0 and so on": lambda raw: (
        ",".join(f"{number}.0" for number in range(32)).encode() + b"\n" + uci_form()
    ),
    "a byte order mark": lambda raw: b"\xef\xbb\xbf" + uci_form(),
    "Excel's Unicode text": lambda raw: table(sep="\t", decimal=",")(raw).decode().encode("utf-16"),
    "CRLF": lines("\n", "\r\n"),
    "CR": lines("\n", "\r"),
    "blank lines": lambda raw: b"\n" + uci_form() + b"\n \n",
    "spaces round values": lines(",", " , "),
    "quotes": lines("[^,\n]+", r'"\g<0>"'),
    "a comma at every end": lines("$(?=\n)", ","),
    "NaN at every end": lines("$(?=\n)", ",NaN"),
    "semicolons": table(sep=";"),
    "semicolons, decimal commas": table(sep=";", decimal=","),
    "semicolons, decimal commas, no header": lambda raw: uci_form().replace(b",", b";").replace(b".", b","),
    "tabs": table(sep="\t"),
    "bars": table(sep="|"),
    "blanks, as R writes them": lambda raw: table(sep=" ", index=True, quoting=csv.QUOTE_NONNUMERIC)(raw).removeprefix(
        b'"" '
    ),
    "Excel's line": lambda raw: b"sep=;\r\n" + table(sep=";", decimal=",")(raw),
    "gzip": lambda raw: gzip.compress(uci_form()),
    "a zip": pack("table.csv"),
    "UCI's archive": pack("wdbc.data", "wdbc.names", "Index"),
    "UCI's archive, unpacked on a Mac": pack("breast/wdbc.data", "breast/wdbc.names", "breast/.DS_Store"),
    "a workbook in a zip": lambda raw: zipped({"a/table.xlsx": office("Excel")(raw)}),
    "a zip from a Mac": pack("a/wdbc.data", "a/", "__MACOSX/a/._wdbc.data"),
    "Parquet": parquet,
    "Parquet, numbers as ids": lambda raw: parquet(raw.astype({"id": "float64"})),
    "Parquet, categories": lambda raw: parquet(raw.astype({"diagnosis": "category"})),
    "Parquet, bytes": lambda raw: parquet(
        raw.assign(**{name: raw[name].map(str.encode) for name in ("id", "diagnosis")})
    ),
    "Parquet, texts with decimal commas": lambda raw: parquet(
        raw.astype(dict.fromkeys(MEASUREMENTS, str)).replace(r"\.", ",", regex=True)
    ),
    "Parquet, an index": lambda raw: parquet(raw.set_index("id"), index=True),
    "Excel": lambda raw: office("Excel")(raw.astype({"id": int})),
    "LibreOffice": office("LibreOffice"),
    "pandas' index": table(index=True),
    "pandas' index with a name": table(index=True, index_label="index"),
    "Unnamed: 0": table(index=True, index_label="Unnamed: 0"),
    "R's names of rows": lambda raw: table(index=True)(raw).removeprefix(b","),
    "Rdatasets": table(index=True, index_label="rownames"),
    "dots": table(rename=names("{0}.{1}", two_words=("concave.pts", "fractal-dim"))),
    "camel case": table(rename={name: re.sub("_(.)", lambda letter: letter[1].upper(), name) for name in MEASUREMENTS}),
    "upper case": table(rename={name: name.upper() for name in columns.RAW}),
    "words before": table(rename=names("{1}_{0}")),
    "largest": table(rename=names("{0} {1}", ("Mean", "Error", "Largest"))),
    "as in mclust": table(rename=names("{0}_{1}", ("mean", "se", "extreme"), ("Nconcave", "Fractaldim"))),
    "points and dimension": table(rename=names("{0}_{1}", two_words=("points", "dimension"))),
    "numbers as names": table(rename=NUMBERED),
    "numbers as names, and an index": table(rename=NUMBERED, index=True),
    "letters as names": table(rename=LETTERS),
    "ID, Class, V1": table(rename=V | {"id": "ID", "diagnosis": "Class"}),
    "ID number": table(rename={"id": "ID number"}),
    "patient": table(rename={"id": "Patient"}),
    "Malignant and Benign": table(assign={"diagnosis": labels("Malignant", "Benign")}),
    "malig. and ben.": table(assign={"diagnosis": labels("malig.", "ben.")}),
    "two labels that agree": table(assign={"target": labels("malignant", "benign")}),
    "a label with another name": table(rename={"diagnosis": "cancer_type"}),
    "float32": measured(lambda numbers: numbers.astype("float32").astype("float64")),
    "standardised and back": there_and_back(StandardScaler()),
    "scaled to 0..1 and back": there_and_back(MinMaxScaler()),
}
WITHOUT_IDS: dict[str, Form] = {
    "scikit-learn": scikit_learn,
    "scikit-learn, floats": lambda raw: re.sub(rb"(?m),([01])$", rb",\1.0", scikit_learn(raw)),
    "scikit-learn, False and True": lambda raw: (
        scikit_learn(raw).replace(b",0\n", b",False\n").replace(b",1\n", b",True\n")
    ),
    "scikit-learn's names, and words": table(
        ["id"], rename=SCIKIT | {"diagnosis": "target"}, assign={"diagnosis": labels("Malignant", "Benign")}
    ),
    "scikit-learn's target as Parquet": lambda raw: parquet(
        load_breast_cancer(as_frame=True).frame.astype({"target": bool})
    ),
    "no id": table(["id"]),
    "no id and no header": lines("^[^,]+,"),
    "the diagnosis last, no header": lines(r"^[^,]+,([MB]),(.*)$", r"\2,\1"),
    "an id of two values": table(assign={"id": lambda raw: raw.index % 2}),
    "a patient that stands twice": table(rename={"id": "patient"}, assign={"id": lambda raw: raw.index // 2}),
    "an index, no id": table(["id"], index=True),
    "R's names of rows, no id": lambda raw: table(["id"], index=True)(raw).removeprefix(b","),
    "the diagnosis as index": lambda raw: raw.drop(columns="id").set_index("diagnosis").to_csv(index_label="").encode(),
    "Feature1, as in R": table(
        ["id"], index=True, rename={name: f"Feature{number}" for number, name in enumerate(MEASUREMENTS, 1)}
    ),
}


@pytest.mark.parametrize("name", WITH_IDS)
def test_every_form_gives_the_same_patients_under_their_ids(raw: pd.DataFrame, name: str) -> None:
    left_out: list[str] = []
    read = admission.read_table(WITH_IDS[name](raw), name, left_out.append)
    assert read["id"].tolist() == raw["id"].tolist()
    assert canonical.fingerprint(read) == canonical.UCI_FINGERPRINT
    np.testing.assert_allclose(read[MEASUREMENTS], raw[MEASUREMENTS], rtol=1e-6, atol=1e-12)
    assert left_out == []


@pytest.mark.parametrize("name", WITHOUT_IDS)
def test_a_form_without_ids_gives_them_in_their_order(raw: pd.DataFrame, name: str) -> None:
    read = admission.read_table(WITHOUT_IDS[name](raw), name)
    assert read["id"].tolist() == [f"row-{number:04}" for number in range(1, 570)]
    assert canonical.fingerprint(read) == canonical.UCI_FINGERPRINT


def test_three_significant_digits_are_accepted_and_nobody_is_refused_by_a_rule(raw: pd.DataFrame) -> None:
    three = measured(np.vectorize(lambda number: float(f"{number:.3g}")))
    assert len(admission.read_table(three(raw), "rounded")) == 569


WITHOUT_DIAGNOSES: dict[str, Form] = {
    "scikit-learn's data": lambda raw: load_breast_cancer(as_frame=True).data.to_csv(index=False).encode(),
    "ours": table(["diagnosis"]),
    "UCI's file": lines(",[MB],", ","),
    "only numbers": lines("^[^,]+,[MB],"),
    "one letter": table(["diagnosis"], {"sex": "M", "side": "B"}),
    "diagnosis 0 and 1": table(assign={"diagnosis": labels(1, 0)}),
    "diagnosis -1 and 1": table(assign={"diagnosis": labels(-1, 1)}),
    "a target beside other names": table(["diagnosis"], assign={"target": labels(0, 1)}),
    "a target and another diagnosis": table(
        rename=SCIKIT, assign={"target": labels(0, 1), "diagnosis": lambda raw: raw.index % 2}
    ),
    "isBenign": table(["diagnosis"], assign={"isBenign": labels(0, 1)}),
    "scikit-learn's names and diagnosis": table(rename=SCIKIT, assign={"diagnosis": labels(0.0, 1.0)}),
}


@pytest.mark.parametrize("name", WITHOUT_DIAGNOSES)
def test_without_diagnoses_rows_are_read_and_no_model_is_trained(raw: pd.DataFrame, name: str) -> None:
    content = WITHOUT_DIAGNOSES[name](raw)
    form, parts = reading.read_rows(io.BytesIO(content))
    assert form.labels == ()
    assert (raw[MEASUREMENTS].to_numpy() == np.hstack([rows.measurements for rows in parts]).T).all()
    says = "write M for malignant and B for benign" if form.codes else "no model can be trained on it"
    with pytest.raises(TableError, match=f"It has no diagnoses.*{says}"):
        admission.read_table(content, name)
    assert bool(form.codes) == (name not in [*WITHOUT_DIAGNOSES][:5])


LEFT_OUT: dict[str, Form] = {
    "'age', 'Y', 'Center'": table(assign={"age": 50, "Y": labels(1, 0), "Center": "x"}, index=True),
    "'class'": table(assign={"class": lambda raw: [*"ABC"] * 189 + ["A", "B"]}),
    "'diagnosis'": table(rename=SCIKIT, assign={"target": labels(0, 1), "diagnosis": labels(1, 0)}),
    "'X'": table(rename={"id": "X"}),
    "a column without a name": table(rename={"id": ""}),
    "'patient'": table(rename={"id": "patient"}, assign={"id": lambda raw: raw["id"].where(raw.index != 9, "10003")}),
}


@pytest.mark.parametrize("says", LEFT_OUT)
def test_columns_that_the_model_has_no_use_for_are_left_out_and_named(raw: pd.DataFrame, says: str) -> None:
    left_out: list[str] = []
    read = admission.read_table(LEFT_OUT[says](raw), "more.csv", left_out.append)
    assert canonical.fingerprint(read) == canonical.UCI_FINGERPRINT
    assert left_out == [says]


MADE: dict[str, Form] = {
    "an empty gzip": lambda raw: gzip.compress(b""),
    "bz2": lambda raw: bz2.compress(uci_form()),
    "xz": lambda raw: lzma.compress(uci_form()),
    "a pickle": pickle.dumps,
    "a zip of two": pack("a.csv", "b.csv"),
    "gzip in gzip": lambda raw: gzip.compress(gzip.compress(uci_form())),
    "a zip of nothing": lambda raw: zipped({}),
    "a text of Word": lambda raw: zipped({"[Content_Types].xml": "<Types/>", "word/document.xml": "<x/>"}),
    "a tar archive": lambda raw: b"table.csv".ljust(257, b"\0") + b"ustar\0",
    "a NumPy archive": lambda raw: zipped({"table.npy": b"\x93NUMPY\x01\x00"}),
    "units in names": table(rename={name: f"{name} (mm)" for name in MEASUREMENTS[:3]}),
    "points between thousands": table(
        sep=";",
        decimal=",",
        assign={"area_mean": lambda raw: raw["area_mean"].map("{:_.1f}".format).str.translate(GERMAN)},
    ),
    "a field too many": lambda raw: table()(raw).replace(b"\n", b",7\n").replace(b",7\n", b"\n", 1),
    "a text below an empty name, late": lambda raw: kaggle(raw).removesuffix(b"\r\n") + b",checked",
    "a repeated id in Parquet": lambda raw: parquet(raw.assign(id=raw["id"].where(raw.index != 7, "10003"))),
    "a damaged zip": lambda raw: pack("a.csv")(raw)[:-30],
    "a damaged gzip": lambda raw: gzip.compress(uci_form())[:5000],
    "Parquet of other columns": lambda raw: parquet(pd.DataFrame({"a": [1.0], "b": ["x"]})),
    "Parquet of texts": lambda raw: parquet(raw.astype({"area_se": str}).assign(area_se="x")),
    "Parquet without names": lambda raw: parquet(raw.rename(columns=V)),
    "Excel without the columns": lambda raw: office("Excel")(raw[["id", "area_se"]]),
    "a broken workbook": lambda raw: b"\xd0\xcf\x11\xe0" + bytes(99),
    "a missing column": table(["fractal_dimension_worst"]),
    "no last name": lambda raw: canonical.write_table(raw).replace(b"fractal_dimension_worst", b"", 1),
    "ten means": table([name for name in MEASUREMENTS if not name.endswith("_mean")]),
    "ten means, no header": lines("^[^,]+,([MB](,[^,]+){10}).*", r"\1"),
    "names of families alone": lambda raw: re.sub(rb"_mean|\w+_(se|worst)", b"", table()(raw)),
    "a repeated column": table(assign={"radius1": 1}),
    "0 and 1, no header": table(assign={"diagnosis": labels(1, 0)}, header=False),
    "0 and 1 first": table(["id"], {"diagnosis": labels(1, 0)}, header=False),
    "0 and 1 last": lines(r"^[^,]+,([MB]),(.*)$", r"\2,0"),
    "0 and 1 below numbers": table(["id"], {"diagnosis": labels(1, 0)}, NUMBERED, index=True),
    "no last column": lines(",[^,\n]+$"),
    "the first patient as header": lambda raw: pd.read_csv(io.BytesIO(uci_form())).to_csv().encode(),
    "two labels that differ": table(assign={"target": labels("benign", "malignant")}),
    "an inverted target": lambda raw: re.sub(
        rb"(?m)[01]$", lambda digit: b"%d" % (digit[0] == b"0"), scikit_learn(raw)
    ),
    "inverted labels": table(assign={"diagnosis": labels("B", "M")}),
    "Prognostic": lambda raw: ",".join(["119513", "N", "31", *["1.5"] * 30, "5", "5"]).encode(),
    "one diagnosis": lines(",B,", ",M,"),
    "a repeated id": table(assign={"id": lambda raw: raw["id"].where(raw.index != 7, "10003")}),
    "a twin through float32": lambda raw: (
        uci_form() + table(header=False)(raw.head(1).assign(id="zzz", area_se=np.float32(153.4)))
    ),
    "a row that no nucleus has": lines(",1001,0.1184,", ",501,0.1184,"),
}


@pytest.mark.parametrize("name", FILES["refusals"])
def test_what_is_not_the_table_is_refused_with_the_reason(raw: pd.DataFrame, name: str) -> None:
    match FILES["refusals"][name]:
        case [text, says]:
            content = text.encode()
        case says:
            content = MADE[name](raw)
    with pytest.raises(TableError) as error:
        admission.read_table(content, "some.csv")
    assert says in str(error.value)
    assert str(error.value).endswith(". some.csv cannot be used")


def test_all_problems_are_counted_and_twenty_of_them_shown(raw: pd.DataFrame) -> None:
    with pytest.raises(TableError) as error:
        admission.read_table(table(assign={"area_se": "?"})(raw), "some.csv")
    first, *_, last = str(error.value).splitlines()
    assert first == "Line 2, id 10003: area_se is '?'; allowed is a finite decimal number with a point, like 17.99"
    assert str(error.value).count("area_se") == 20
    assert last == "and 549 more problems. some.csv cannot be used"


@pytest.mark.parametrize("gap", ["", "NA", "?", '"17,99"'])
def test_a_first_patient_with_gaps_is_no_header(gap: str) -> None:
    first, _, rest = uci_form().partition(b"\n")
    spoiled = ",".join([*first.decode().split(",")[:2], *[gap] * 20, *first.decode().split(",")[22:]]).encode()
    parts = list(reading.read_rows(io.BytesIO(spoiled + b"\n" + rest))[1])
    assert sum(map(len, parts)) == 569
    assert (parts[0].ids[0], list(parts[0].problems)) == (first.decode().split(",")[0], [0])
