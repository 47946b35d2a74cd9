"""One of our trackers in the got10k package: on OTB, or on the validation or test part of GOT-10k.

Run: python run_got10k.py otb DATA --out OUT
     python run_got10k.py got10k DATA --mode nlbbox --sentences sentences.json --out OUT
``sentences.json`` holds {"folder of the sequence": "sentence"}. See requirements.txt for what to install.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

from vltrack.core.errors import VltrackError
from vltrack.evaluation.harnesses.got10k import Got10kTracker

matplotlib.use("Agg")  # the report draws curves; no window is needed

from got10k.experiments import ExperimentGOT10k, ExperimentOTB


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("benchmark", choices=["otb", "got10k"])
    parser.add_argument("data", type=Path, help="OTB's folder of sequences, or the folder that holds val/ and test/")
    parser.add_argument("--version", default="2015", help="of OTB: 2013, 2015, tb50, tb100")
    parser.add_argument("--subset", default="val", choices=["val", "test"], help="of GOT-10k")
    parser.add_argument("--model", default="litetrack-tiny")
    parser.add_argument("--mode", default="bbox", choices=["bbox", "nl", "nlbbox"])
    parser.add_argument("--sentences", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path("got10k-output"))
    given = parser.parse_args()
    sentences = json.loads(given.sentences.read_text(encoding="utf-8")) if given.sentences else None
    folders = {"result_dir": str(given.out / "results"), "report_dir": str(given.out / "reports")}
    experiment: Any
    if given.benchmark == "otb":
        version = int(given.version) if given.version.isdecimal() else given.version
        experiment = ExperimentOTB(str(given.data), version=version, **folders)
    else:
        experiment = ExperimentGOT10k(str(given.data), subset=given.subset, **folders)
    tracker = Got10kTracker(given.model, mode=given.mode, sentences=sentences, device=given.device)
    experiment.run(tracker)
    experiment.report([tracker.name])


if __name__ == "__main__":
    try:
        main()
    except VltrackError as error:
        sys.exit(f"{error.code}: {error}")
