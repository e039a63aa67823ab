"""One diffusion model, or one of shape and one of reflectance? `python -m experiments.single_vs_separate`

Reads the runs of `python train.py experiment=single_vs_separate`, and evaluates those that are not evaluated yet.
"""

from pathlib import Path

from experiments.ablation.training import Options, Study
from fitdiff.command import run_command

STUDY = Study(
    "single_vs_separate",
    "model",
    {
        "fitdiff": "single",
        "fitdiff_separate": "separate",
    },
    Path(__file__).parent,
)

if __name__ == "__main__":
    run_command(STUDY.write, Options, __doc__)
