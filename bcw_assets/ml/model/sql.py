"""A model as a query, for those whose rows are in a database."""

from importlib import resources

from bcw_assets.ml.model.numbers import Scorer

TEMPLATE = resources.files(__package__).joinpath("model.sql").read_text(encoding="utf-8")


def write_query(scorer: Scorer) -> str:
    """Return a SELECT of CASE, EXP and arithmetic, which adds up the log odds in the order of `compute_log_odds`."""
    # 17 digits are exact, and with an exponent a number is a double where DuckDB, Spark and MySQL would read a decimal.
    numbers = zip(scorer.features, scorer.coefficients, scorer.mean, scorer.scale, strict=True)
    terms = [f"{weight:+.16e} * (({name} - {mean:.16e}) / {scale:.16e})" for name, weight, mean, scale in numbers]
    return TEMPLATE.format(log_odds="\n    ".join([f"{scorer.intercept:.16e}", *terms]))
