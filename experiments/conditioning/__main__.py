"""How should the embedding enter the denoiser? `python -m experiments.conditioning [publish=true]`

Reads the runs of `python train.py experiment=conditioning`, and evaluates those that are not evaluated yet.
"""

from pathlib import Path

from experiments.ablation.training import Options, Study
from fitdiff.command import run_command

STUDY = Study(
    "conditioning",
    "denoiser",
    {
        "spade_unet1d_laptop": "SPADE",
        "film_unet1d_laptop": "FiLM",
        "cross_attention_unet1d_laptop": "cross-attention",
    },
    Path(__file__).parent,
)

if __name__ == "__main__":
    run_command(STUDY.write, Options, __doc__)
