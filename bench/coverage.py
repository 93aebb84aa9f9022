"""How often the 95 % intervals hold the truth, on synthetic tables whose truth is known.

make coverage
.venv/bin/python bench/coverage.py --tables 200

Each table has as many patients as the real one, malignant with its prevalence, drawn from two normal distributions with
the real means and covariances of each diagnosis. The truth of a table's own models is how those of the first repeat's
folds do on 50,000 further patients; the truth of the recipe is the mean of that over all tables.
"""

import argparse
import time
from functools import partial

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from sklearn.base import clone
from sklearn.model_selection import StratifiedKFold

from bcw_assets.ml import bootstrap, calibration, columns, performance, resampling, table, training, utility
from bcw_assets.ml.evaluation import RESAMPLES
from bcw_assets.ml.performance import Summary
from bcw_assets.ml.resampling import Resampling
from bcw_assets_tests.tables import uci_form

HOW = Resampling(folds=10, repeats=3, seed=0)
MODEL = training.build(1.0)
FURTHER = 50_000
BENEFIT = partial(utility.net_benefit, threshold=0.1)


def main() -> None:
    """Print for each measure how many intervals hold the truth, with the interval of that share."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--tables", type=int, default=400)
    tables = parser.parse_args().tables
    real = table.read(uci_form(), "bench")
    random = np.random.default_rng(1)
    start = time.perf_counter()
    further = drawn(real, random, FURTHER)
    found, truths = [], []
    for _ in range(tables):
        sample = drawn(real, random, len(real))
        found.append(summaries(sample))
        truths.append(truth(sample, further))
    print(f"{tables} tables of {len(real)} patients, {time.perf_counter() - start:.0f} s")
    print(f"{'':<24} {'truth':>8}  {'holds that of the recipe':<26} {'that of its own models':<26} without")
    for name in truths[0]:
        own = [one[name] for one in truths]
        of_recipe = float(np.mean(own))
        limits = [(one[name].interval, true) for one, true in zip(found, own, strict=True)]
        kept = [(*interval, true) for interval, true in limits if interval]
        recipe = sum(low <= of_recipe <= high for low, high, _ in kept)
        mine = sum(low <= one <= high for low, high, one in kept)
        without = tables - len(kept)
        print(f"{name:<24} {of_recipe:8.4f}  {share(recipe, len(kept)):<26} {share(mine, len(kept)):<26} {without}")


def drawn(real: pd.DataFrame, random: np.random.Generator, patients: int) -> pd.DataFrame:
    """Draw patients like the real ones."""
    ill = table.malignant(real)
    malignant = random.random(patients) < ill.mean()
    numbers = np.empty((patients, len(columns.MEASUREMENTS)))
    for diagnosis, rows in ((1, malignant), (0, ~malignant)):
        of_it = real.loc[ill == diagnosis, list(columns.MEASUREMENTS)].to_numpy()
        numbers[rows] = random.multivariate_normal(of_it.mean(axis=0), np.cov(of_it.T), rows.sum(), method="cholesky")
    sample = pd.DataFrame(numbers, columns=list(columns.MEASUREMENTS))
    sample.insert(0, columns.ID, [f"{one:05}" for one in range(patients)])
    sample.insert(1, columns.DIAGNOSIS, np.where(malignant, columns.MALIGNANT, columns.BENIGN))
    return sample


def summaries(sample: pd.DataFrame) -> dict[str, Summary]:
    """Return every measure with its interval, by the project's own way."""
    malignant, probabilities = table.malignant(sample), resampling.out_of_fold(sample, MODEL, HOW).probabilities()
    within = bootstrap.draws(malignant, RESAMPLES, HOW.seed)
    plain = bootstrap.draws(np.zeros_like(malignant), RESAMPLES, HOW.seed)
    summarise = partial(performance.summarise, malignant, probabilities)
    return (
        summarise(within, performance.score, {})
        | summarise(plain, calibration.measures, {})
        | summarise(plain, BENEFIT, {})
    )


def truth(sample: pd.DataFrame, further: pd.DataFrame) -> dict[str, float]:
    """Return the mean of every measure, on further patients, of the models of the first repeat's folds."""
    measurements, malignant = sample[list(columns.MEASUREMENTS)].to_numpy(), table.malignant(sample)
    others, diagnoses = further[list(columns.MEASUREMENTS)].to_numpy(), table.malignant(further)
    everybody, found = np.ones((len(diagnoses), 1)), []
    for train, _ in StratifiedKFold(HOW.folds, shuffle=True, random_state=HOW.seed).split(measurements, malignant):
        probability = clone(MODEL).fit(measurements[train], malignant[train]).predict_proba(others)[:, 1]
        measures = (performance.score, calibration.measures, BENEFIT)
        found.append({k: v[0] for one in measures for k, v in one(diagnoses, probability, everybody).items()})
    return {name: float(np.mean([one[name] for one in found])) for name in found[0]}


def share(hits: int, tables: int) -> str:
    """Return a share with its interval."""
    interval = binomtest(hits, tables).proportion_ci(method="wilson")
    return f"{hits / tables:.1%} ({interval.low:.1%} to {interval.high:.1%})"


if __name__ == "__main__":
    main()
