"""The names of the columns, their meaning and their labels. With `rules` the only module that names a measurement.

Source: W. N. Street, W. H. Wolberg, O. L. Mangasarian, "Nuclear feature extraction for breast tumor diagnosis",
SPIE 1905 (1993) 861-870, and UCI's description of the data set (DOI 10.24432/C5DW2B).
"""

import re
from dataclasses import dataclass

ID = "id"
DIAGNOSIS = "diagnosis"
MALIGNANT = "M"
BENIGN = "B"

LENGTH = "image units"  # UCI gives no scale, so no micrometres are claimed
AREA = "image units squared"
RATIO = "dimensionless"


@dataclass(frozen=True)
class Family:
    """One property of a cell nucleus, recorded as mean, standard error and worst (mean of the three largest)."""

    name: str
    meaning: str
    unit: str


FAMILIES = (
    Family("radius", "distance from the centre of the nucleus to its outline", LENGTH),
    Family("texture", "standard deviation of the grey values inside the nucleus", "grey levels"),
    Family("perimeter", "length of the outline", LENGTH),
    Family("area", "area inside the outline", AREA),
    Family("smoothness", "local variation of the radius", RATIO),
    Family("compactness", "perimeter² / (4π · area) - 1, which is 0 for a circle", RATIO),
    Family("concavity", "severity of the concave parts of the outline", RATIO),
    Family("concave_points", "concave parts of the outline (UCI calls it their number; the values are shares)", RATIO),
    Family("symmetry", "difference in length of the lines on both sides of the longest axis", RATIO),
    Family("fractal_dimension", "coastline approximation of the outline, minus one", RATIO),
)

STATISTICS = {
    "mean": "mean over the nuclei of the image",
    "se": "standard error over the nuclei of the image",
    "worst": "mean of the three largest values in the image",
}

MEASUREMENTS = tuple(f"{family.name}_{statistic}" for statistic in STATISTICS for family in FAMILIES)
"""The 30 measurements in the order of UCI's file: ten means, ten standard errors, ten worst values."""

RAW = (ID, DIAGNOSIS, *MEASUREMENTS)
"""The columns of `raw_data`, in order."""

SIZE = "radius_mean"  # by which patients are divided into small and large nuclei

PROBABILITY = "probability_malignant"  # in what `bcw predict` writes; a table that has it is read without it
LABELS = (MALIGNANT, BENIGN)
WHOLE_WORDS = ("malignant", "benign")
WORDS = {
    word[:length] + end: label
    for word, label in zip(WHOLE_WORDS, LABELS, strict=True)
    for length in range(1, len(word) + 1)
    for end in ("", ".")
}
"""What a diagnosis may be written as, in lower case → ours."""
TARGET = "target"  # scikit-learn's name of the diagnosis
TARGET_CODES = {
    **dict.fromkeys(("0", "0.0", "false"), MALIGNANT),  # 0 is malignant there: the other way round
    **dict.fromkeys(("1", "1.0", "true"), BENIGN),
}
CODES = {*TARGET_CODES, "2", "2.0", "-1", "-1.0", "yes", "no"}
"""Labels that are in use for either diagnosis."""

# Names as `squeeze_name` leaves them.
SPELLINGS = {
    "concave_points": ("concavepoints", "concavepoint", "concavepts", "concave", "nconcave", "points", "pts"),
    "fractal_dimension": ("fractaldimension", "fractaldim", "dimension", "dim"),
}
STATISTIC_WORDS = {
    "mean": ("mean", "1"),
    "se": ("se", "error", "2"),
    "worst": ("worst", "largest", "extreme", "3"),
}
ALIASES = {
    alias: f"{family.name}_{statistic}"
    for family in FAMILIES
    for statistic, words in STATISTIC_WORDS.items()
    for spelling in SPELLINGS.get(family.name, (family.name,))
    for word in words
    for alias in (spelling + word, word + spelling)
}
"""Squeezed name of a measurement in any form → ours."""
SCIKIT_LEARN = frozenset(
    squeezed
    for name in (family.name.replace("_", "") for family in FAMILIES)
    for squeezed in (f"mean{name}", f"{name}error", f"worst{name}")
)
"""Squeezed names of scikit-learn's columns, beside which `target` is its own."""
STEMS = re.compile("radius|texture|perimet|area|smooth|compact|concav|symmet|fractal")
ID_NAMES = (ID, "idnumber", "idno", "patientid", "patientnumber", "patient", "sampleid", "caseid", "case", "number")
LABEL_NAMES = (DIAGNOSIS, TARGET, "class", "label", "y")
INDEX_NAMES = ("", "unnamed0", "index", "rownames", "rowname", "indexlevel0", "x")

DESCRIPTIONS = {
    ID: ("the patient's number, as text; a table without ids gets row-0001 and so on", ""),
    DIAGNOSIS: (f"{MALIGNANT} = malignant, {BENIGN} = benign, confirmed by biopsy or follow-up", ""),
} | {
    f"{family.name}_{statistic}": (f"{family.meaning}: {meaning}", family.unit)
    for statistic, meaning in STATISTICS.items()
    for family in FAMILIES
}
"""Column of `raw_data` → (what it means, its unit)."""


def squeeze_name(name: str) -> str:
    """Return a column's name without what writers differ in: case, blanks, dots, hyphens and underscores.

    >>> [squeeze_name(name) for name in ("concave.points_mean", "FractalDimension-Worst", "Unnamed: 0")]
    ['concavepointsmean', 'fractaldimensionworst', 'unnamed0']
    """
    return re.sub(r"[\W_]+", "", name).lower()
