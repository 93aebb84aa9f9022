"""The same five stages as the shortest script that does them: what the refresh is timed against.

python bare.py URL FOLDER
"""

import io
import json
import pickle
import shutil
import sys
from pathlib import Path

import pandas as pd
import requests
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

url, folder = sys.argv[1], Path(sys.argv[2])
folder.mkdir(parents=True, exist_ok=True)

# download
answer = requests.get(url, timeout=30)
answer.raise_for_status()
table = pd.read_csv(io.BytesIO(answer.content), header=None)
table.to_csv(folder / "raw_data.csv", index=False)

# preprocess
measurements, malignant = table.iloc[:, 2:], (table[1] == "M").astype(int)
train, test = train_test_split(table.index, test_size=0.2, random_state=42)
scaler = StandardScaler().fit(measurements.loc[train])
ready = pd.DataFrame(scaler.transform(measurements), index=table.index)
ready.to_csv(folder / "ready_data.csv", index=False)

# train
classifier = LogisticRegression().fit(ready.loc[train], malignant.loc[train])
(folder / "model.pkl").write_bytes(pickle.dumps(make_pipeline(scaler, classifier)))

# evaluate
called, truth = classifier.predict(ready.loc[test]), malignant.loc[test]
scores = {
    "accuracy": accuracy_score(truth, called),
    "precision": precision_score(truth, called),
    "recall": recall_score(truth, called),
    "f1_score": f1_score(truth, called),
}
(folder / "metrics.json").write_text(json.dumps(scores, indent=4))

# upload
(folder / "upload").mkdir(exist_ok=True)
for name in ("model.pkl", "metrics.json"):
    shutil.copy(folder / name, folder / "upload" / name)
