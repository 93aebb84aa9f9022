"""The shortest script that scores a table with scikit-learn: what `bcw predict` is timed against.

python bare_predict.py MODEL TABLE [OUT [decimal-comma]]
"""

import pickle
import sys
from pathlib import Path

import pandas as pd

model = pickle.loads(Path(sys.argv[1]).read_bytes())

if len(sys.argv) == 3:
    table = pd.read_csv(sys.argv[2])
    print(model.predict_proba(table[model.feature_names_in_])[:, 1])
else:
    separator, decimal = (";", ",") if len(sys.argv) > 4 else (",", ".")
    for number, table in enumerate(pd.read_csv(sys.argv[2], chunksize=20_000, sep=separator, decimal=decimal)):
        probability = model.predict_proba(table[model.feature_names_in_])[:, 1]
        rows = pd.DataFrame({"id": table["id"], "probability": probability})
        rows.to_csv(sys.argv[3], mode="w" if number == 0 else "a", header=number == 0, index=False)
