"""Epochs for TensorBoard. Its files name machine and time, so they are for one's own eyes and no artefacts."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from ucadi.files import writing
from ucadi.learn.state import EpochRecord


class Board:
    """A folder that TensorBoard shows; a training that goes on replaces what it had written of the same epochs."""

    def __init__(self, folder: Path) -> None:
        import tensorboard  # noqa: F401 - torch would say in other words that it is missing

        self._folder = folder
        self._shown = 0

    def show(self, records: Sequence[EpochRecord]) -> None:
        """Adds the records that are new since the last call."""
        from torch.utils.tensorboard import SummaryWriter

        new = records[self._shown :]
        with writing(self._folder, "make room and run again, or leave out --tensorboard"), _silent_threads():
            writer = SummaryWriter(self._folder, purge_step=new[0].epoch + 1 if self._shown == 0 else None)
            for record in new:
                for name, value in asdict(record).items():
                    if name != "epoch" and value is not None:
                        writer.add_scalar(name.replace("validation_", "validation/"), value, record.epoch + 1)
            writer.close()
        self._shown = len(records)


@contextmanager
def _silent_threads() -> Iterator[None]:
    """Nothing is printed of what the writer's own thread meets: closing the writer raises it."""
    before = threading.excepthook
    threading.excepthook = lambda _: None
    try:
        yield
    finally:
        threading.excepthook = before
