"""REALY: errors of a predicted face in four regions of a scan, in mm (Chai et al. 2022)."""
