"""How often the 95 % intervals hold the truth, on synthetic tables whose truth is known.

make coverage
.venv/bin/python bench/coverage.py --tables 200

Each table has as many patients of each diagnosis as the real one, drawn from two normal distributions with the real
means and the real covariances (each diagnosis its own). The truth is how the models do on 50,000 further patients.
"""

import argparse
import time

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from sklearn.base import clone
from sklearn.model_selection import StratifiedKFold

from bcw_assets.ml import columns, performance, resampling, table, training
from bcw_assets.ml.resampling import Resampling
from bcw_assets_tests.tables import uci_form

SCORES = ("sensitivity", "specificity", "accuracy", "ppv", "roc_auc", "pr_auc", "brier", "log_loss")
HOW = Resampling(folds=10, repeats=3, seed=0)
FURTHER = 50_000


def main() -> None:
    """Print for each score how many intervals hold the truth, with the interval of that share."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--tables", type=int, default=400)
    tables = parser.parse_args().tables
    real = table.read(uci_form(), "bench")
    malignant = table.malignant(real)
    random = np.random.default_rng(1)
    start = time.perf_counter()
    further = drawn(real, random, FURTHER)
    found, truths = [], []
    for _ in range(tables):
        sample = drawn(real, random, len(real))
        found.append(intervals(sample))
        truths.append(truth(sample, further))
    of_recipe = {name: float(np.mean([one[name] for one in truths])) for name in SCORES}
    print(f"{tables} tables of {len(real)} patients ({malignant.sum()} malignant), {time.perf_counter() - start:.0f} s")
    print(f"{'':<12} {'truth':>7}  {'holds the truth of the recipe':<32} holds that of its own models")
    for name in SCORES:
        recipe = sum(one[name][0] <= of_recipe[name] <= one[name][1] for one in found)
        own = sum(one[name][0] <= true[name] <= one[name][1] for one, true in zip(found, truths, strict=True))
        print(f"{name:<12} {of_recipe[name]:7.4f}  {told(recipe, tables):<32} {told(own, tables)}")


def drawn(real: pd.DataFrame, random: np.random.Generator, patients: int) -> pd.DataFrame:
    """Draw patients like the real ones, in the same share of diagnoses."""
    parts = []
    for diagnosis in ("M", "B"):
        of_it = real.loc[real["diagnosis"] == diagnosis, list(columns.MEASUREMENTS)].to_numpy()
        count = round(patients * len(of_it) / len(real))
        numbers = random.multivariate_normal(of_it.mean(axis=0), np.cov(of_it.T), count, method="cholesky")
        part = pd.DataFrame(numbers, columns=list(columns.MEASUREMENTS))
        part.insert(0, "diagnosis", diagnosis)
        parts.append(part)
    both = pd.concat(parts, ignore_index=True)
    both.insert(0, "id", [f"{one:05}" for one in range(len(both))])
    return both


def intervals(sample: pd.DataFrame) -> dict[str, list[float]]:
    """Return the interval of each score by the project's own way."""
    malignant = table.malignant(sample)
    probabilities = resampling.out_of_fold(sample, training.build(1.0), HOW).probabilities()

    def measure(repeat: int, weights: np.ndarray) -> dict[str, np.ndarray]:
        return performance.score(malignant, probabilities[:, repeat], weights)

    counts = {"accuracy": len(malignant), "sensitivity": int(malignant.sum())}
    counts["specificity"] = counts["accuracy"] - counts["sensitivity"]
    found = performance.summarise(malignant, HOW.repeats, HOW.seed, measure, counts, {})
    return {name: found[name].interval or [np.nan, np.nan] for name in SCORES}


def truth(sample: pd.DataFrame, further: pd.DataFrame) -> dict[str, float]:
    """Return the mean scores, on further patients, of the models of the first repeat's folds."""
    measurements, malignant = sample[list(columns.MEASUREMENTS)].to_numpy(), table.malignant(sample)
    others, diagnoses = further[list(columns.MEASUREMENTS)].to_numpy(), table.malignant(further)
    found = []
    for train, _ in StratifiedKFold(HOW.folds, shuffle=True, random_state=HOW.seed).split(measurements, malignant):
        model = clone(training.build(1.0)).fit(measurements[train], malignant[train])
        found.append(performance.score(diagnoses, model.predict_proba(others)[:, 1], np.ones((len(diagnoses), 1))))
    return {name: float(np.mean([one[name] for one in found])) for name in SCORES}


def told(hits: int, tables: int) -> str:
    """Return a share with its interval."""
    share = binomtest(hits, tables).proportion_ci(method="wilson")
    return f"{hits / tables:.1%} ({share.low:.1%} to {share.high:.1%})"


if __name__ == "__main__":
    main()
