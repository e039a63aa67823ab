"""Train FitDiff: `python train.py model=fitdiff`. `--help` lists groups and common overrides."""

import hydra
from omegaconf import DictConfig

from fitdiff.cli import guarded, prepare

prepare()


@hydra.main(config_path="conf", config_name="train", version_base="1.3")
@guarded
def main(config: DictConfig) -> None:
    """Run the stages that are missing."""
    from fitdiff.training.pipeline import Pipeline

    Pipeline(config).run()


if __name__ == "__main__":
    main()
