"""The names of the columns, their meaning and their labels. With `rules` the only module that names a measurement.

Source: W. N. Street, W. H. Wolberg, O. L. Mangasarian, "Nuclear feature extraction for breast tumor diagnosis",
SPIE 1905 (1993) 861-870, and UCI's description of the data set (DOI 10.24432/C5DW2B).
"""

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
TARGET = "target"  # scikit-learn's name of the diagnosis
LABELS = {MALIGNANT: MALIGNANT, BENIGN: BENIGN}
TARGET_LABELS = {"0": MALIGNANT, "1": BENIGN}  # 0 is malignant there: the other way round

ALIASES = {
    alias: f"{family.name}_{statistic}"
    for family in FAMILIES
    for number, statistic in enumerate(STATISTICS, start=1)
    for alias in (
        f"{family.name}_{statistic}",  # ours and, but for spaces, Kaggle's
        f"{family.name}{number}",  # UCI's API
        f"{family.name}_error" if statistic == "se" else f"{statistic}_{family.name}",  # scikit-learn
    )
} | {ID: ID, DIAGNOSIS: DIAGNOSIS, TARGET: DIAGNOSIS, PROBABILITY: PROBABILITY}
"""Name of a column in any form, in lower case and with _ for spaces → ours."""

DESCRIPTIONS = {
    ID: ("the patient's number, as text; a table without ids gets row-0001 and so on", ""),
    DIAGNOSIS: (f"{MALIGNANT} = malignant, {BENIGN} = benign, confirmed by biopsy or follow-up", ""),
} | {
    f"{family.name}_{statistic}": (f"{family.meaning}: {meaning}", family.unit)
    for statistic, meaning in STATISTICS.items()
    for family in FAMILIES
}
"""Column of `raw_data` → (what it means, its unit)."""
