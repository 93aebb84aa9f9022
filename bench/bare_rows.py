"""The same five stages with the cross-validation as the shortest script: what `rows.py` holds the refresh against.

Solver, folds and the forms of the files are those of the refresh. It has no checks, no intervals, no history and no
release.

python bare_rows.py FILE FOLDER REPEATS ROWS_FOR_PARQUET
"""

import json
import pickle
import shutil
import sys
from pathlib import Path

import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, log_loss, precision_score, recall_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

file, folder, repeats, large = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])


def store(frame: pd.DataFrame, name: str) -> None:
    """Write a table as the refresh does."""
    if len(frame) > large:
        frame.to_parquet(folder / f"{name}.parquet", index=False)
    else:
        frame.to_csv(folder / f"{name}.csv", index=False)


# download
names = ["id", "diagnosis", *(f"x{place}" for place in range(30))]
table = pd.read_csv(file, header=None, names=names, dtype={"id": "str"}).sort_values("id", ignore_index=True)
store(table, "raw_data")

# preprocess
measurements, malignant = table.iloc[:, 2:], (table["diagnosis"] == "M").astype(int)
train, test = train_test_split(table.index, test_size=0.2, random_state=42)
scaler = StandardScaler().fit(measurements.loc[train])
ready = pd.DataFrame(scaler.transform(measurements), columns=measurements.columns)
split = pd.Series("train", index=table.index)
split[test] = "test"
store(pd.concat([table["id"], split.rename("split"), malignant.rename("malignant"), ready], axis=1), "ready_data")

# train
classifier = LogisticRegression(solver="newton-cholesky", tol=1e-8).fit(ready.loc[train], malignant.loc[train])
(folder / "model.pkl").write_bytes(pickle.dumps(make_pipeline(scaler, classifier)))

# evaluate
recipe = make_pipeline(StandardScaler(), LogisticRegression(solver="newton-cholesky", tol=1e-8))
predicted = table[["id", "diagnosis"]].copy()
for repeat in range(repeats):
    folds = StratifiedKFold(10, shuffle=True, random_state=repeat)
    probabilities = cross_val_predict(recipe, measurements, malignant, cv=folds, method="predict_proba")
    predicted[f"repeat_{repeat}"] = probabilities[:, 1]
store(predicted, "cross_validation")
called, truth = classifier.predict(ready.loc[test]), malignant.loc[test]
scores = {
    score.__name__: score(truth, called) for score in (accuracy_score, precision_score, recall_score, f1_score)
} | {
    score.__name__: sum(score(malignant, predicted[f"repeat_{repeat}"]) for repeat in range(repeats)) / repeats
    for score in (roc_auc_score, log_loss)
}
(folder / "metrics.json").write_text(json.dumps(scores, indent=4))

# upload
(folder / "upload").mkdir()
predicted.to_csv(folder / "upload" / "cross_validation.csv", index=False)
for name in ("model.pkl", "metrics.json"):
    shutil.copy(folder / name, folder / "upload" / name)
