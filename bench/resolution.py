"""How many wrong labels the gate sees: it judges copies of UCI's table in which some diagnoses were turned round.

make resolution
.venv/bin/python bench/resolution.py --draws 20
"""

import argparse
from collections import Counter

from bcw_assets.ml.evaluation.scores import SCORES
from bcw_assets.ml.table import admission
from bcw_assets.releases import gate
from bcw_assets.releases.bundle import Bundle
from bcw_assets.releases.log import Log
from bcw_assets_tests.releases.candidates import candidate_of, flipped
from bcw_assets_tests.tables import uci_form

PERCENT = (0.5, 1, 2, 3, 4, 5)
FLOORS = {profile.title for profile in SCORES.values() if profile.floor}
NO_LOG = Log(place="", entries=(), damage={}, foreign={}, newest=0, digest=None)
BESIDE = ("log loss beside the champion", "sensitivity beside the champion")


def main() -> None:
    """Print how many copies each part of the gate refuses."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--draws", type=int, default=20, help="copies of each share of wrong labels")
    draws = parser.parse_args().draws
    real = admission.read_table(uci_form(), "bench")
    candidate = candidate_of(real, repeats=10)
    champion = Bundle(candidate.id, candidate.files, None, problems=())
    print(f"refused of {draws} copies: by the floors, beside the clean champion, by its labels, by any of them")
    for percent in PERCENT:
        count = round(percent / 100 * len(real))
        refused: Counter[str] = Counter()
        for seed in range(draws):
            copy = candidate_of(flipped(real, count, seed), repeats=10)
            broken = {row["rule"] for row in gate.find_broken(gate.judge(copy, [], champion, NO_LOG))}
            refused["floors"] += bool(broken & FLOORS)
            refused["beside"] += bool(broken & set(BESIDE))
            refused["labels"] += "relabelled rows" in broken
            refused["any"] += bool(broken)
        shares = "  ".join(f"{refused[name]:3}" for name in ("floors", "beside", "labels", "any"))
        print(f"{percent:4g} % wrong ({count:2} of {len(real)}): {shares}", flush=True)


if __name__ == "__main__":
    main()
