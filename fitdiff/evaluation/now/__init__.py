"""The NoW benchmark (`benchmark=now`): errors of whole neutral faces against scans, in millimetres."""
