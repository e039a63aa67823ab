"""Make the data that `train.py` reads, on one machine or many: `python prepare.py data=people data.n=100000`."""

import hydra
from omegaconf import DictConfig

from fitdiff.cli import guarded, prepare, run_prepare

prepare()


@hydra.main(config_path="conf", config_name="prepare", version_base="1.3")
@guarded
def main(config: DictConfig) -> None:
    """Make this job's share of what is missing."""
    run_prepare(config)


if __name__ == "__main__":
    main()
