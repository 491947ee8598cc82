"""How a training goes, for the people who wait for it: a line an epoch, a table, a picture, TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ucadi.files import make_folder, write_file
from ucadi.formats import epochs
from ucadi.learn.state import EpochRecord
from ucadi.progress import note


class TrainingReport:
    """Called after each epoch with all records. `log` is a folder for `epochs.csv` and `curve.png`, `board` one for
    TensorBoard."""

    def __init__(self, total_epochs: int, log: Path | None, board: Path | None) -> None:
        from ucadi.learn.tensorboard import Board

        self._total, self._log = total_epochs, log
        self._board = Board(board) if board else None
        if log:
            make_folder(log)

    def __call__(self, records: Sequence[EpochRecord]) -> None:
        """Tells of the last epoch, and writes anew what shows them all."""
        note(describe(records[-1], self._total))
        if self._log:
            epochs.write(self._log / "epochs.csv", records)
            write_file(self._log / "curve.png", _picture(records), force=True)
        if self._board:
            self._board.show(records)


def describe(record: EpochRecord, total_epochs: int) -> str:
    """An epoch in a line."""
    parts = [f"loss {record.loss:.3f}", f"accuracy {record.accuracy:.2f}"]
    parts += [] if record.auc is None else [f"AUC {record.auc:.3f}"]
    parts += [] if record.validation_loss is None else [f"validation loss {record.validation_loss:.3f}"]
    parts += [] if record.validation_auc is None else [f"validation AUC {record.validation_auc:.3f}"]
    return f"epoch {record.epoch + 1} of {total_epochs}: {', '.join(parts)}"


def _picture(records: Sequence[EpochRecord]) -> bytes:
    from ucadi.scoring.curves import learning_curve_png

    return learning_curve_png(
        [record.epoch for record in records],
        {
            "loss": {
                "training": [record.loss for record in records],
                "validation": [record.validation_loss for record in records],
            },
            "AUC": {
                "training": [record.auc for record in records],
                "validation": [record.validation_auc for record in records],
            },
            "learning rate": {"learning rate": [record.learning_rate for record in records]},
        },
    )
