"""How fast people are made: samples a second of each part, at the sizes and on the device of the caller."""

from __future__ import annotations

import time
from collections import defaultdict

import torch
from rich.table import Table

from fitdiff.data.people.maker import PeopleMaker


class Stopwatch:
    """Adds up the seconds between laps, by name; waits for the device first."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.seconds = device, defaultdict[str, float](float)
        self.start()

    def start(self) -> None:
        """Begin here."""
        self._synchronise()
        self._last = time.perf_counter()

    def __call__(self, part: str) -> None:
        """What passed since the last lap belongs to `part`."""
        self._synchronise()
        now = time.perf_counter()
        self.seconds[part] += now - self._last
        self._last = now

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def bench(maker: PeopleMaker, batch: int, rounds: int = 3) -> Table:
    """Make `rounds` batches of people in this process, after one to warm up; a table of each part and the whole."""
    maker.make(range(batch))
    watch = Stopwatch(maker.device)
    for first in range(batch, (rounds + 1) * batch, batch):
        watch.start()
        maker.make(range(first, first + batch), watch)
    n, total = rounds * batch, sum(watch.seconds.values())
    size = f"{maker.resolution}² maps, {maker.views} x {maker.portrait_size}² portraits, batch {batch}"
    table = Table("part", "ms a person", "share", "people/s", title=f"{size}, {_where(maker.device)}")
    for part, seconds in [*watch.seconds.items(), ("all", total)]:
        row = (f"{1e3 * seconds / n:.2f}", f"{seconds / total:.0%}", f"{n / seconds:.1f}")
        table.add_row(part, *row, style="bold" if part == "all" else "", end_section=part == list(watch.seconds)[-1])
    return table


def _where(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)} of the CPU"
