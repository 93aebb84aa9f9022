"""What is in a bundle, and that it is of use to somebody who has nothing else."""

import dataclasses
import io
import pickle
import pickletools
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer

from bcw_assets import documents
from bcw_assets.errors import ArtifactError, ReleaseError
from bcw_assets.ml.model import preparation, resampling, sql, training
from bcw_assets.ml.model.preparation import Split
from bcw_assets.ml.model.resampling import Resampling
from bcw_assets.ml.table import admission, canonical, columns
from bcw_assets.releases import bundle, promotion
from bcw_assets.storage.folder import FolderStore
from bcw_assets.storage.store import Store
from bcw_assets_tests.conftest import CHECKOUT
from bcw_assets_tests.releases.candidates import MEMBERS, Candidate, candidate_of
from bcw_assets_tests.tables import shuffled, uci_form


@pytest.fixture(scope="session")
def outside(candidate: Candidate, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but the bundle."""
    place = tmp_path_factory.mktemp("published")
    promotion.promote(FolderStore(place), candidate, [], "a run")
    return (place / "releases" / candidate.id).rename(tmp_path_factory.mktemp("outside") / "bundle")


def test_it_holds_these_files_and_no_other_none_can_be_executed_and_sha256sum_accepts_it(outside: Path) -> None:
    assert sorted(path.name for path in outside.iterdir()) == sorted([*MEMBERS, bundle.MANIFEST])
    done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=outside, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"{name}: OK" for name in MEMBERS if name != bundle.SUMS]
    for path in outside.iterdir():
        assert path.stat().st_mode & 0o111 == 0
        with pytest.raises((pickle.UnpicklingError, ValueError, EOFError, IndexError, KeyError)):
            list(pickletools.genops(path.read_bytes()))


IN_README = re.findall(r"```python\n(.*?)```", (CHECKOUT / "docs/predict.md").read_text(), flags=re.DOTALL)


@pytest.mark.parametrize(
    ("packages", "program"),
    [
        ((), IN_README[0]),
        (("numpy", "numpy.libs", "onnxruntime"), re.sub(r"print\((.*)\)", r'print(*\1, sep="\\n")', IN_README[1])),
    ],
)
def test_the_programs_of_the_docs_give_the_probabilities_of_the_example_with_nothing_else_installed(
    outside: Path, tmp_path: Path, packages: tuple[str, ...], program: str
) -> None:
    for name in packages:
        (tmp_path / name).symlink_to(Path(np.__file__).parents[1] / name)
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.append({str(tmp_path)!r})\n{program}"]
    done = subprocess.run(command, cwd=outside, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    probabilities = [float(line.split()[-1]) for line in done.stdout.splitlines()]
    expected = pd.read_csv(outside / "example.csv")[columns.PROBABILITY]
    np.testing.assert_allclose(probabilities, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["model.onnx", "model.sql"])
def test_a_form_of_the_model_that_says_something_else_is_not_released(
    candidate: Candidate, challenger: Candidate, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    import skl2onnx

    if name == "model.onnx":
        convert = partial(skl2onnx.convert_sklearn, challenger.model)
        monkeypatch.setattr(skl2onnx, "convert_sklearn", lambda _, *rest, **named: convert(*rest, **named))
    else:
        monkeypatch.setattr(sql, "write_query", lambda _: challenger.files["model.sql"].decode())
    with pytest.raises(ReleaseError, match=rf"{re.escape(name)} gives other probabilities than the model, by 0\.\d"):
        assert dataclasses.replace(candidate).files


def test_ucis_file_in_any_order_and_the_copy_without_ids_are_one_release_byte_for_byte() -> None:
    numbers, target = load_breast_cancer(return_X_y=True)
    frame = pd.DataFrame(numbers, columns=columns.MEASUREMENTS).assign(diagnosis=np.array(["M", "B"])[target])
    embedded = frame.to_csv(index=False).encode()
    of_uci, of_copy = (candidate_of(admission.read_table(table, "x")) for table in (shuffled(uci_form()), embedded))
    assert of_uci.raw_data[columns.ID].tolist() != of_copy.raw_data[columns.ID].tolist()
    assert of_uci.id == of_copy.id
    assert of_uci.files == of_copy.files


def test_every_row_is_there_by_its_fingerprint(candidate: Candidate) -> None:
    frame = pd.read_csv(io.BytesIO(candidate.files["cross_validation.csv"]))
    assert frame["fingerprint"].tolist() == canonical.fingerprint_rows(candidate.raw_data)
    assert (frame["split"] == "train").sum() == 455
    probability = 1 / (1 + np.exp(-frame["log_odds"]))
    measurements = candidate.raw_data[list(columns.MEASUREMENTS)]
    np.testing.assert_allclose(probability, candidate.model.predict_proba(measurements)[:, 1], atol=1e-12)


def test_an_id_begins_with_the_inputs_on_any_machine_and_ends_with_the_content(candidate: Candidate) -> None:
    assert (candidate.id[:8], candidate.inputs["scikit_learn"]) == ("28426903", "1.9")
    for name, value in candidate.inputs.items():
        values = [value | {key: "another"} for key in value] if isinstance(value, dict) else ["another"]
        for other in values:
            assert bundle.hash_inputs(candidate.inputs | {name: other}) != "28426903"
    other, _ = bundle.pack(candidate.inputs, candidate.files | {"MODEL_CARD.md": b"other versions"})
    assert (other[:8], other == candidate.id) == ("28426903", False)
    release, packed = bundle.pack(candidate.inputs, candidate.files)
    manifest = documents.read_sealed(dict, packed[bundle.MANIFEST])
    del manifest["release"]
    assert release == candidate.id == "28426903" + documents.digest(documents.encode(manifest))[:8]


def test_values_that_do_not_belong_together_are_refused(store: Store, candidate: Candidate, raw: pd.DataFrame) -> None:
    ready = preparation.prepare(raw, Split(0.3, 1, stratify=False))
    cases: list[tuple[dict[str, Any], str]] = [
        ({"ready_data": ready}, "model"),
        ({"cross_validation": resampling.predict_out_of_fold(raw, candidate.model, Resampling(5, 1, 0))}, "metrics"),
        ({"ready_data": ready, "model": training.train(ready, 1.0)}, "metrics"),
        ({"raw_data": raw.assign(id=[f"x{number:03}" for number in range(len(raw))])}, "metrics"),
    ]
    for changes, to_run_again in cases:
        with pytest.raises(ArtifactError, match=f"bcw refresh {to_run_again};"):
            promotion.promote(store, dataclasses.replace(candidate, **changes), [], "run")
    assert store.list("") == []
