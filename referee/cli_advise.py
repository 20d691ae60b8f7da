"""`referee advise`: which contract is safe for a model of one's own."""

from __future__ import annotations

from pathlib import Path

import click

from referee.advise import advise
from referee.cli_common import DEVICE, FOLDER, JOBS, PRIVATE, command_line, progress, show

__all__ = ["advise_command"]


@click.command(
    "advise", epilog="Example: referee advise mine --private photos --public public --root oracle --out runs/advice"
)
@click.argument("model")
@click.option("--private", type=FOLDER, required=True, help="images.npy and labels.npy, or a folder for each class.")
@click.option("--public", type=FOLDER, required=True, help="images.npy, or image files: what an attacker may have.")
@click.option("--root", type=FOLDER, required=True, help="The server's, where MODEL is hosted; it stays as it is.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder of the advice.")
@click.option(
    "--rows", type=click.IntRange(16), default=1000, show_default=True, help="Queries for each class, at most."
)
@click.option("--no-mirror", is_flag=True, help="Images that mean something else when mirrored, such as digits.")
@DEVICE
@PRIVATE
@JOBS
def advise_command(
    model: str,
    private: Path,
    public: Path,
    root: Path,
    out: Path,
    rows: int,
    no_mirror: bool,
    device: str,
    private_images: bool,
    jobs: int,
) -> None:
    """Which contract is safe for MODEL? Attacks a copy of it under three contracts, and says what each gives away."""
    with progress(out, "reading the model") as say:
        cells, view = advise(
            model,
            private=private,
            public=public,
            root=root,
            out=out,
            command=command_line(),
            rows=rows,
            mirror=not no_mirror,
            device=device,
            private_images=private_images,
            say=say,
            jobs=jobs,
        )
    show(cells, view, out)
