"""Which terms of the training loss earn their place? `python -m experiments.loss_ablation [publish=true]`

Reads the runs of `python train.py experiment=loss_ablation`, and evaluates those that are not evaluated yet.
"""

from pathlib import Path

from experiments.ablation.training import Options, Study
from fitdiff.command import run_command

STUDY = Study(
    "loss_ablation",
    "losses",
    {
        "all": "all",
        "no_id": "no L_id",
        "no_per": "no L_per",
        "no_verts": "no L_verts",
        "noise_only": "L_noise alone",
    },
    Path(__file__).parent,
    by_seed=True,
)

if __name__ == "__main__":
    run_command(STUDY.write, Options, __doc__)
