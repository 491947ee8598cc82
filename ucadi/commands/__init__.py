"""One module, one command: a function on files, whose body is read, compute, write.

The options that many commands share are described here once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Output = Annotated[Path, typer.Option("--output", "-o", help="File to write.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing output.")]
PlanFile = Annotated[Path, typer.Option("--plan", help="The round's signed plan.")]
RosterFile = Annotated[Path, typer.Option("--roster", help="The federation's signed roster.")]
KeyFile = Annotated[Path, typer.Option("--key", help="One's own secret key file.")]
