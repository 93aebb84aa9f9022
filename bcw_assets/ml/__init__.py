"""Knowledge of the table and of the model: no Dagster, no network, no files."""
