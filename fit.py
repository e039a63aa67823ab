"""Fit photos: `python fit.py photo=me.jpg`, or a folder, a list, a video. `--help` lists groups and overrides."""

import hydra
from omegaconf import DictConfig

from fitdiff.cli import guarded, prepare

prepare()


@hydra.main(config_path="conf", config_name="fit", version_base="1.3")
@guarded
def main(config: DictConfig) -> None:
    """Fit one photo or an album of them, and write the results."""
    from fitdiff.cli import run_fit

    run_fit(config)


if __name__ == "__main__":
    main()
