"""The page that the demo ends with."""

from __future__ import annotations

from collections.abc import Sequence

from ucadi.commands.gradcam import GradcamResult
from ucadi.formats.predictions import Predictions
from ucadi.formats.weights import Weights
from ucadi.labels import Diagnosis
from ucadi.pages.evaluation import evaluation_page
from ucadi.scoring.metrics import Report
from ucadi.scoring.plots import confusion_png, roc_png
from ucadi.scoring.report import Section, Table
from ucadi.scoring.study import spread


def demo_page(
    steps: Sequence[tuple[str, str]],
    report: Report,
    predictions: Predictions,
    explained: GradcamResult,
    montage: bytes,
    model: Weights,
) -> str:
    """The results as one self-contained page of HTML; `steps` are commands and the first lines that they printed."""
    covid = report.covid
    figures = (
        ("AUC of COVID-19 against all others", covid.auc),
        ("sensitivity", covid.sensitivity),
        ("specificity", covid.specificity),
        ("accuracy of four diagnoses", report.accuracy),
    )
    scores = predictions.mean[:, Diagnosis.COVID]
    side = model.architecture["size"]
    return evaluation_page(
        "ucadi demo",
        [
            Section(
                "What the network saw",
                "Sixteen slices of a synthetic CT with COVID-19, which the network gives a probability of "
                f"{explained.probabilities[explained.diagnosis]:.2f}. The heatmap (Grad-CAM) shows where it looked.",
                pictures=(("heatmap on slices of the CT", montage),),
                links=(("Heatmap and CT as NIfTI, list of regions", "heatmap/"),),
            ),
            Section(
                "How good it is",
                f"On {report.cases} synthetic CTs that it was not trained on; 95 % intervals in brackets. Synthetic "
                "lungs are easier than real ones: this shows that the software works, and says nothing about patients.",
                Table(("", "value"), tuple((name, spread(value)) for name, value in figures)),
                (
                    ("ROC curve", roc_png([("demo", predictions.labels == Diagnosis.COVID, scores)])),
                    ("confusion matrix", confusion_png(report.confusion)),
                ),
                (("The full report: calibration, decision curve, model card", "report/report.html"),),
            ),
            Section(
                "How it was made",
                "From DICOM to a heatmap in five commands. Run them again in this folder, or with data of your own.",
                Table(("command", "its first line of output"), tuple(steps)),
            ),
            Section(
                "The model",
                f"A 3D-DenseNet for 16 slices of {side} x {side} pixels, trained by demo-model.sh of the repository "
                f"on other synthetic CTs. SHA-256 {model.digest}.",
            ),
        ],
    )
