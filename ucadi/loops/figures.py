"""How good a model is on a site's own test set, in the few figures that a site may publish."""

from __future__ import annotations

from pathlib import Path

from ucadi.commands.evaluate import evaluate
from ucadi.commands.predict import predict


def figures(test: Path, model: Path, predictions: Path) -> dict[str, float]:
    """AUC, sensitivity and specificity for COVID-19 and the four classes' accuracy, those that the set can give.

    What the model predicts is left at `predictions`.
    """
    predict(test, model=[model], output=predictions, force=True)
    (reports,) = evaluate([predictions]).reports.values()
    (report,) = reports.values()
    found = {
        "auc": report.covid.auc.value if report.covid.auc else None,
        "sensitivity": report.covid.sensitivity.value,
        "specificity": report.covid.specificity.value,
        "accuracy": report.accuracy.value,
    }
    return {name: value for name, value in found.items() if value is not None}
