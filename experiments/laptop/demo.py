"""The second half of `make demo`: fit held-out people and a real photo with the model that was just trained."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import skimage.data
from PIL import Image
from rich.console import Console
from rich.table import Table

from experiments.laptop.table import load_run
from fitdiff.evaluation.compare import compare, methods_of

RUN = Path("outputs/fitdiff-laptop")
OUT = Path("outputs/demo")


def main() -> None:
    """Print a short table and fit `skimage.data.astronaut()` (NASA, public domain)."""
    console = Console()
    model, people, metrics = load_run(RUN)
    console.print("fitting 8 held-out people, whose scenes are unknown to the fit")
    methods = methods_of(model)
    results = compare(model, people.held_out, 8, {name: methods[name] for name in ("mean face", "guided")}, False)
    autoencoder = metrics["autoencoder"]
    table = Table("autoencoder, held-out PSNR", "diffuse", "specular", "normals")
    for label, suffix in (("decoded", ""), ("mean map", "_mean_map")):
        table.add_row(
            label, *(f"{autoencoder[f'psnr_{m}{suffix}']:.1f} dB" for m in ("diffuse", "specular", "normals"))
        )
    console.print(table)
    table = Table("8 held-out people", "photo ID", "novel ID", "… centred", "shape", "diffuse", "time")
    for method, m in results.items():
        mean = {key: float(value.mean()) for key, value in m.items()}
        table.add_row(
            method, f"{mean['photo_id']:.3f}", f"{mean['novel_id']:.3f}", f"{mean['novel_id_centred']:.2f}",
            f"{mean['shape_mm']:.2f} mm", f"{mean['diffuse_db']:.1f} dB", f"{mean['seconds']:.1f} s",
        )  # fmt: skip
    console.print(table)
    OUT.mkdir(parents=True, exist_ok=True)
    photo = OUT / "astronaut.png"
    Image.fromarray(skimage.data.astronaut()).save(photo)
    command = ["fit.py", f"photo={photo}", f"checkpoint={RUN / 'model'}", f"out={OUT / 'astronaut'}"]
    console.print(f"\n$ python {' '.join(command)}", highlight=False)
    subprocess.run([sys.executable, *command], check=True)
    console.print(
        f"\nLook at [bold]{OUT / 'astronaut' / 'comparison.png'}[/]; avatar.glb opens in Blender or three.js."
    )


if __name__ == "__main__":
    main()
