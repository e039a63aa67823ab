"""Sweeps without a server: a W&B sweep file run by Optuna, a trial a process (`python -m fitdiff.sweep file=...`).

`spec` reads the file, `programs` knows where an entry point writes its metric, `study` is Optuna's memory of the
trials on disk, `runner` runs them here, `launch` hands a grid to one of Hydra's launchers, `summary` tells the end.
"""
