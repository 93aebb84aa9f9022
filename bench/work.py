"""The stages' own work without Dagster, timed after the imports: what of the refresh is the project's knowledge.

python work.py TABLE
"""

import sys
import time
from pathlib import Path

from bcw_assets.assets import ResamplingConfig, SplitConfig, TrainingConfig
from bcw_assets.ml.evaluation.report import evaluate
from bcw_assets.ml.model import preparation, resampling, training
from bcw_assets.ml.model.preparation import Split
from bcw_assets.ml.model.resampling import Resampling
from bcw_assets.ml.table import admission

start = time.perf_counter()
raw = admission.read_table(Path(sys.argv[1]).read_bytes(), "bench")
ready = preparation.prepare(raw, Split(**SplitConfig.model_validate({}).model_dump()))
model = training.train(ready, **TrainingConfig.model_validate({}).model_dump())
folds = ResamplingConfig.model_validate({})
repeats = folds.repeats or resampling.choose_repeats(len(raw))
predicted = resampling.predict_out_of_fold(raw, model, Resampling(folds.folds, repeats, folds.seed))
evaluate(raw, ready, model, predicted)
print(time.perf_counter() - start)
