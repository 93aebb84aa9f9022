"""The names of the columns, their meaning and their labels.

Source of what columns.json says: W. N. Street, W. H. Wolberg, O. L. Mangasarian, "Nuclear feature extraction for breast
tumor diagnosis", SPIE 1905 (1993) 861-870, and UCI's description of the data set (DOI 10.24432/C5DW2B), which gives no
scale, so no micrometres are claimed.
"""

import re
from dataclasses import dataclass

import msgspec

ID, DIAGNOSIS = "id", "diagnosis"
MALIGNANT, BENIGN = LABELS = ("M", "B")
TARGET = "target"  # scikit-learn's name of the diagnosis
PROBABILITY = "probability_malignant"  # in what `bcw predict` writes; a table that has it is read without it


@dataclass(frozen=True)
class Family:
    """One property of a cell nucleus, recorded as mean, standard error and worst (mean of the three largest)."""

    name: str
    meaning: str
    unit: str
    spellings: tuple[str, ...] = ()  # others than the name, as `squeeze_name` leaves them


with open(__file__.removesuffix("py") + "json", "rb") as _file:
    _TEXTS = msgspec.json.decode(_file.read())

SIZE: str = _TEXTS["size"]  # by which patients are divided into small and large nuclei
FAMILIES = msgspec.convert(_TEXTS["families"], tuple[Family, ...])
STATISTICS: dict[str, str] = _TEXTS["statistics"]
MEASUREMENTS = tuple(f"{family.name}_{statistic}" for statistic in STATISTICS for family in FAMILIES)
"""The 30 measurements in the order of UCI's file: ten means, ten standard errors, ten worst values."""

RAW = (ID, DIAGNOSIS, *MEASUREMENTS)
"""The columns of `raw_data`, in order."""

DESCRIPTIONS: dict[str, tuple[str, str]] = _TEXTS["descriptions"] | {
    f"{family.name}_{statistic}": (f"{family.meaning}: {meaning}", family.unit)
    for statistic, meaning in STATISTICS.items()
    for family in FAMILIES
}
"""Column of `raw_data` → (what it means, its unit)."""

WHOLE_WORDS = ("malignant", "benign")
WORDS = {
    word[:length] + end: label
    for word, label in zip(WHOLE_WORDS, LABELS, strict=True)
    for length in range(1, len(word) + 1)
    for end in ("", ".")
}
"""What a diagnosis may be written as, in lower case → ours."""
TARGET_CODES: dict[str, str] = _TEXTS["target_codes"]  # 0 is malignant there: the other way round
CODES = frozenset(_TEXTS["codes"])
"""Labels that are in use for either diagnosis."""

# Names as `squeeze_name` leaves them.
ALIASES = {
    alias: f"{family.name}_{statistic}"
    for family in FAMILIES
    for statistic, words in _TEXTS["statistic_words"].items()
    for spelling in (family.name.replace("_", ""), *family.spellings)
    for word in words
    for alias in (spelling + word, word + spelling)
}
"""Name of a measurement in any form → ours."""
SCIKIT_LEARN = frozenset(
    form.format(family.name.replace("_", "")) for family in FAMILIES for form in _TEXTS["scikit_learn"]
)
"""The names of scikit-learn's columns, beside which `target` is its own."""
STEMS = re.compile(_TEXTS["stems"])
ID_NAMES: list[str] = _TEXTS["id_names"]
LABEL_NAMES: list[str] = _TEXTS["label_names"]
INDEX_NAMES: list[str] = _TEXTS["index_names"]


def squeeze_name(name: str) -> str:
    """Return a column's name without what writers differ in: case, blanks, dots, hyphens and underscores.

    >>> [squeeze_name(name) for name in ("concave.points_mean", "FractalDimension-Worst", "Unnamed: 0")]
    ['concavepointsmean', 'fractaldimensionworst', 'unnamed0']
    """
    return re.sub(r"[\W_]+", "", name).lower()
