"""How often the 95 % intervals hold the truth, on synthetic tables whose truth is known exactly.

make coverage
.venv/bin/python bench/coverage.py --tables 200 --rows 150 --shift 0.5

The patients of a table are malignant with the real prevalence, and their measurements normal within each diagnosis,
with the real means and covariances. So the log odds of a linear model are normal too, and each of its scores in the
population is an integral over one dimension. The truth of a table's own models is the mean over all folds of all
repeats; the truth of the recipe is the mean of that over all tables.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing import Pool

import numpy as np
from scipy.special import expit, log_expit
from scipy.stats import binomtest, norm
from sklearn.datasets import load_breast_cancer
from threadpoolctl import threadpool_limits

from bcw_assets.ml.evaluation import calibration, scores, utility
from bcw_assets.ml.evaluation.scores import Summary
from bcw_assets.ml.model import resampling, training
from bcw_assets.ml.model.resampling import Resampling

ROWS = (569, 150, 50)
FOLDS, REPEATS = 10, 10
GRID = np.linspace(-8.5, 8.5, 1201)
DENSITY = norm.pdf(GRID) * (GRID[1] - GRID[0])  # the trapezoidal rule, exact to rounding for so smooth a function
MAX_STEPS, TOLERANCE = 60, 1e-10  # of Newton's method, for the calibration


@dataclass(frozen=True)
class Population:
    """Two normal distributions; index 0 is benign, 1 malignant."""

    prevalence: float
    means: list[np.ndarray]
    covariances: list[np.ndarray]


@dataclass(frozen=True)
class Models:
    """M logistic regressions on the raw measurements: M intercepts and M × 30 coefficients."""

    intercepts: np.ndarray
    coefficients: np.ndarray


def main() -> None:
    """Print for each measure how many intervals hold the truth, with the interval of that share."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--tables", type=int, default=1000)
    parser.add_argument("--rows", type=int, nargs="*", default=ROWS)
    parser.add_argument("--shift", type=float, default=1.0, help="of the means, in differences of the diagnoses")
    arguments = parser.parse_args()
    people = population(arguments.shift)
    with Pool(initializer=threadpool_limits, initargs=(1,)) as pool:
        for rows in arguments.rows:
            start = time.perf_counter()
            tables = pool.map(partial(simulate_table, people, rows), range(arguments.tables), chunksize=5)
            seconds = time.perf_counter() - start
            print(f"\n{len(tables)} tables of {rows} patients, {REPEATS} × {FOLDS} folds, {seconds:.0f} s\n")
            print("| | own models' truth | held | recipe's truth | held | no interval |\n|---|---|---|---|---|---|")
            for name in tables[0][0]:
                print(f"| {' | '.join(format_row(name, tables))} |", flush=True)


def format_row(name: str, tables: list[tuple[dict[str, Summary], dict[str, float]]]) -> Iterator[str]:
    """Return the cells of one line."""
    truths = [truth[name] for _, truth in tables]
    of_recipe = float(np.mean(truths))
    pairs = [(summaries[name].interval, truth[name]) for summaries, truth in tables]
    kept = [(*interval, truth) for interval, truth in pairs if interval]
    yield name.replace("_", " ")
    yield f"{min(truths):.3f} to {max(truths):.3f}"
    yield format_share(sum(low <= truth <= high for low, high, truth in kept), len(kept))
    yield f"{of_recipe:.4f}"
    yield format_share(sum(low <= of_recipe <= high for low, high, _ in kept), len(kept))
    yield str(len(tables) - len(kept))


def format_share(hits: int, tables: int) -> str:
    """Return a share with its interval."""
    if not tables:
        return ""
    interval = binomtest(hits, tables).proportion_ci(method="wilson")
    return f"{hits / tables:.1%} ({interval.low:.1%} to {interval.high:.1%})"


def simulate_table(people: Population, rows: int, seed: int) -> tuple[dict[str, Summary], dict[str, float]]:
    """Return every measure with its interval, and its truth, for one table."""
    random = np.random.default_rng([rows, seed])
    malignant = np.zeros(rows, dtype=np.int64)
    while not FOLDS <= malignant.sum() <= rows - FOLDS:  # each fold needs both diagnoses
        malignant = (random.random(rows) < people.prevalence).astype(np.int64)
    probabilities, models = cross_validate(draw(people, random, malignant), malignant)
    truth = {name: float(values.mean()) for name, values in integrate_scores(people, models).items()}
    return summarise(malignant, probabilities), truth


def population(shift: float) -> Population:
    """Return the population that the real table could be of.

    Args:
        shift: of the malignant means from the benign ones, in real differences: below 1 it is a harder table.
    """
    measurements, target = load_breast_cancer(return_X_y=True)
    malignant = target == 0
    groups = [measurements[malignant == label] for label in (False, True)]
    benign = groups[0].mean(axis=0)
    return Population(
        prevalence=float(malignant.mean()),
        means=[benign, benign + shift * (groups[1].mean(axis=0) - benign)],
        covariances=[np.cov(group.T) for group in groups],
    )


def draw(people: Population, random: np.random.Generator, malignant: np.ndarray) -> np.ndarray:
    """Draw the measurements of patients with these diagnoses."""
    measurements = np.empty((len(malignant), len(people.means[0])))
    for label in (0, 1):
        root = np.linalg.cholesky(people.covariances[label])
        noise = random.standard_normal((int((malignant == label).sum()), len(root)))
        measurements[malignant == label] = people.means[label] + noise @ root.T
    return measurements


def cross_validate(measurements: np.ndarray, malignant: np.ndarray) -> tuple[np.ndarray, Models]:
    """Return the out-of-fold probabilities, and the models that gave them."""
    how = Resampling(FOLDS, REPEATS, seed=0)
    probabilities, intercepts, coefficients = np.empty((len(malignant), REPEATS)), [], []
    for repeat, fold, model in resampling.fit_folds(measurements, malignant, training.build(1.0), how):
        scaler, classifier = model
        probabilities[fold, repeat] = model.predict_proba(measurements[fold])[:, 1]
        coefficients.append(classifier.coef_[0] / scaler.scale_)
        intercepts.append(classifier.intercept_[0] - coefficients[-1] @ scaler.mean_)
    return probabilities, Models(np.array(intercepts), np.array(coefficients))


def summarise(malignant: np.ndarray, probabilities: np.ndarray) -> dict[str, Summary]:
    """Return every measure with its interval, by the project's own way."""
    calibrated = calibration.summarise_calibration(malignant, probabilities, FOLDS)
    summaries = scores.summarise_scores(malignant, probabilities, FOLDS) | {
        "slope": calibrated.slope,
        "calibration_in_the_large": calibrated.calibration_in_the_large,
        "observed_expected_ratio": calibrated.observed_expected_ratio,
    }
    for point in utility.summarise_operating_points(malignant, probabilities, FOLDS):
        for name in ("net_benefit", "ppv", "npv"):
            summaries[f"{name} at {point.threshold}"] = getattr(point, name)
    return summaries


def integrate_scores(people: Population, models: Models) -> dict[str, np.ndarray]:
    """Return what the models reach in the population: measure → M values."""
    prevalence = people.prevalence
    mean = [models.intercepts + models.coefficients @ means for means in people.means]
    sd = [
        np.sqrt(np.einsum("md,de,me->m", models.coefficients, covariance, models.coefficients))
        for covariance in people.covariances
    ]
    odds = [mean[label][:, None] + sd[label][:, None] * GRID for label in (0, 1)]
    above_well = norm.sf((odds[1] - mean[0][:, None]) / sd[0][:, None])
    above_ill = norm.sf(GRID)[None, :]
    benign, malignant = (1 - prevalence) * DENSITY, prevalence * DENSITY
    rates = {threshold: _rates(prevalence, mean, sd, threshold) for threshold in utility.THRESHOLDS}
    return {
        **rates[scores.THRESHOLD],
        "roc_auc": norm.cdf((mean[1] - mean[0]) / np.hypot(*sd)),
        "pr_auc": (prevalence * above_ill / (prevalence * above_ill + (1 - prevalence) * above_well)) @ DENSITY,
        "brier": (1 - expit(odds[1])) ** 2 @ malignant + expit(odds[0]) ** 2 @ benign,
        "log_loss": -log_expit(odds[1]) @ malignant - log_expit(-odds[0]) @ benign,
        "observed_expected_ratio": prevalence / (expit(odds[1]) @ malignant + expit(odds[0]) @ benign),
        **_calibration(prevalence, odds),
        **{
            f"{name} at {threshold}": values[name]
            for threshold, values in rates.items()
            for name in ("net_benefit", "ppv", "npv")
        },
    }


def _rates(prevalence: float, mean: list[np.ndarray], sd: list[np.ndarray], threshold: float) -> dict[str, np.ndarray]:
    """Return what follows from calling patients malignant from a threshold on."""
    cut = np.log(threshold / (1 - threshold))
    sensitivity, specificity = norm.cdf((mean[1] - cut) / sd[1]), norm.cdf((cut - mean[0]) / sd[0])
    hits, alarms = prevalence * sensitivity, (1 - prevalence) * (1 - specificity)
    missed, spared = prevalence - hits, 1 - prevalence - alarms
    return {
        "accuracy": hits + spared,
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "sensitivity": sensitivity,
        "specificity": specificity,
        "ppv": hits / (hits + alarms),
        "npv": spared / (spared + missed),
        "f1": 2 * hits / (2 * hits + alarms + missed),
        "net_benefit": hits - alarms * threshold / (1 - threshold),
    }


def _calibration(prevalence: float, odds: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Fit slope and calibration-in-the-large of each model to the whole population, by Newton's method."""
    weights = np.concatenate([(1 - prevalence) * DENSITY, prevalence * DENSITY])
    truth, all_odds = np.repeat([0.0, 1.0], len(GRID)), np.concatenate(odds, axis=1)
    intercept, slope, shift = np.zeros(len(all_odds)), np.ones(len(all_odds)), np.zeros(len(all_odds))
    for _ in range(MAX_STEPS):
        predicted = expit(intercept[:, None] + slope[:, None] * all_odds)
        excess, weight = weights * (truth - predicted), weights * predicted * (1 - predicted)
        gradient = excess.sum(axis=1), (excess * all_odds).sum(axis=1)
        flat, mixed, steep = (weight.sum(axis=1), (weight * all_odds).sum(axis=1), (weight * all_odds**2).sum(axis=1))
        determinant = flat * steep - mixed**2
        steps = [
            (steep * gradient[0] - mixed * gradient[1]) / determinant,
            (flat * gradient[1] - mixed * gradient[0]) / determinant,
        ]
        longest = np.maximum(np.max(np.abs(steps), axis=0), 1)
        intercept, slope = intercept + steps[0] / longest, slope + steps[1] / longest
        shifted = expit(shift[:, None] + all_odds)
        excess, weight = weights * (truth - shifted), weights * shifted * (1 - shifted)
        steps.append(np.clip(excess.sum(axis=1) / weight.sum(axis=1), -1, 1))
        shift = shift + steps[2]
        if np.max(np.abs(steps)) < TOLERANCE:
            break
    return {"slope": slope, "calibration_in_the_large": shift}


if __name__ == "__main__":
    main()
