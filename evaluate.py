"""Evaluate a model: `python evaluate.py benchmark=people checkpoint=...`. `--help` lists groups and overrides."""

import hydra
from omegaconf import DictConfig

from fitdiff.cli import guarded, prepare

prepare()


@hydra.main(config_path="conf", config_name="evaluate", version_base="1.3")
@guarded
def main(config: DictConfig) -> None:
    """Run one benchmark and write what it found."""
    from fitdiff.cli import run_evaluate

    run_evaluate(config)


if __name__ == "__main__":
    main()
