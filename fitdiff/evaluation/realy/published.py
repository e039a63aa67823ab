"""Errors on REALY as the FitDiff paper prints them (Tables 3 and 4 of its supplement), in mm: figures of others."""

from __future__ import annotations

PUBLISHED = """
HiFace-f        1.036 0.992 0.280  1.450 1.388 0.413  1.324 1.296 0.334  1.291 1.240 0.362  1.275
HiFace-c        1.054 1.021 0.317  1.461 1.381 0.430  1.331 1.307 0.347  1.342 1.304 0.384  1.297
HRN             1.722 1.685 0.330  1.357 1.226 0.523  1.995 1.990 0.476  1.072 1.063 0.333  1.537
Deep3D          1.719 1.683 0.354  1.368 1.301 0.439  2.015 2.007 0.449  1.528 1.442 0.501  1.657
AlbGAN          1.656 1.636 0.374  2.087 1.927 0.839  2.102 2.035 0.512  1.141 1.103 0.303  1.746
MGCNet          1.771 1.741 0.380  1.417 1.355 0.409  2.268 2.215 0.503  1.639 1.494 0.650  1.774
GANFit          1.928 1.881 0.490  1.812 1.769 0.544  2.402 3.339 0.545  1.329 1.234 0.504  1.868
FitMe           1.833 1.796 0.434  1.752 1.629 0.539  2.494 2.385 0.605  1.414 1.315 0.526  1.873
PSL             1.708 1.688 0.349  1.708 1.777 0.563  2.350 2.343 0.551  1.593 1.482 0.540  1.882
DECA-c          1.697 1.654 0.355  2.516 2.465 0.839  2.394 2.256 0.576  1.479 1.400 0.535  2.010
CEST            2.779 2.717 0.835  1.448 1.438 0.406  2.384 2.302 0.578  1.456 1.321 0.485  2.017
EMOCA-c         1.868 1.821 0.387  2.679 2.419 1.112  2.426 2.383 0.641  1.438 1.294 0.501  2.103
MICA            1.585 1.542 0.325  3.478 3.439 1.204  2.374 2.251 0.683  1.099 1.003 0.324  2.134
DECA-f          2.138 2.137 0.461  2.802 2.699 0.868  2.457 2.341 0.559  1.443 1.353 0.498  2.210
EMOCA-f         2.532 2.563 0.539  2.929 2.676 1.106  2.595 2.505 0.631  1.495 1.360 0.469  2.388
FitDiff(paper)  1.821 1.770 0.438  1.751 1.611 0.523  2.472 2.322 0.581  1.404 1.287 0.525  1.862
"""
"""Method; mean, median and standard deviation of nose, mouth, forehead, cheek; mean of the four means. As printed, with
what look like slips: the median of GANFit's forehead is far from its mean, PSL's mouth has the mean of its nose."""

PUBLISHED_NOTE = (
    "Published figures are the FitDiff paper's (supplement, Tables 3 and 4), not measured here; it does not say on "
    "which of the benchmark's photos."
)


def published_rows() -> list[list[str]]:
    """Rows of the table: method and 13 figures, as texts."""
    return [line.split() for line in PUBLISHED.strip().splitlines()]
