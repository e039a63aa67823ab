"""Sample faces: `python sample.py n=8 [photo=me.jpg]`. `--help` lists groups and common overrides."""

import hydra
from omegaconf import DictConfig

from fitdiff.cli import guarded, prepare

prepare()


@hydra.main(config_path="conf", config_name="sample", version_base="1.3")
@guarded
def main(config: DictConfig) -> None:
    """Sample faces from the model, with or without an identity."""
    from fitdiff.cli import run_sample

    run_sample(config)


if __name__ == "__main__":
    main()
