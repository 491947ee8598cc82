"""ucadi demo."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import typer

from ucadi.commands.evaluate import evaluate
from ucadi.commands.gradcam import MONTAGE, gradcam
from ucadi.commands.phantom import phantom
from ucadi.commands.predict import predict
from ucadi.commands.preprocess import preprocess
from ucadi.files import new_folder, write_file
from ucadi.formats import predictions as predictions_format
from ucadi.formats import weights as weights_format
from ucadi.formats.predictions import Predictions
from ucadi.hyperparameters import MAX_SEED
from ucadi.labels import Diagnosis
from ucadi.parts import Feature, require
from ucadi.progress import note

MODEL = Path(__file__).with_name("model.weights")
"""Trained on other phantoms by examples/demo-model.sh."""

PAGE = "index.html"

SITE = "demo"
"""Of the phantoms: another name than those of the model's training, so that no patient is the same."""


@dataclass(frozen=True)
class DemoResult:
    """The page made, and what it says: the cases, the AUC of COVID-19 and the share of right diagnoses."""

    page: Path
    cases: int
    auc: float
    accuracy: float
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.cases} synthetic CTs: AUC of COVID-19 {self.auc:.3f}, accuracy {self.accuracy:.2f}, "
            f"in {self.seconds:.0f} s\n{self.page}"
        )


def demo(
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to make.")] = Path("ucadi-demo"),
    patients: Annotated[int, typer.Option(help="How many synthetic patients.", min=8, max=400)] = 16,
    seed: Annotated[int, typer.Option(help="Another seed gives other patients.", min=0, max=MAX_SEED)] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace the output folder if it exists.")] = False,
) -> DemoResult:
    """Show the whole way on synthetic CTs, in under a minute: DICOM, dataset, predictions, evaluation, heatmap.

    Uses a small model that comes with ucadi. Prints each command as you would type it, and ends with the path of a
    page that shows the results. All files stay in the folder. No patient is involved.

    Research only, not for clinical use.

    Example:
        ucadi demo
    """
    require(Feature.NETWORKS, Feature.DATASETS, Feature.SCANS, Feature.STATISTICS, Feature.PLOTS)
    from ucadi.demo.page import demo_page  # brings matplotlib

    began = perf_counter()
    steps: list[tuple[str, str]] = []
    with new_folder(output, force=force) as folder:

        def run(command: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
            typed = _typed(command.__name__, arguments, options, folder)
            note(f"$ {typed}")
            result = command(*arguments, **options)
            steps.append((typed, str(result).partition("\n")[0].replace(f"{folder}/", "")))
            return result

        ct, data, model = folder / "ct", folder / "demo.h5", folder / MODEL.name
        predicted = folder / "predictions" / "demo-model" / "demo.predictions"  # evaluate names models by folders
        write_file(model, MODEL.read_bytes())
        weights = weights_format.read(model)
        run(phantom, ct, site=SITE, patients=patients, burden=0.1, matrix=128, slices=40, seed=seed)
        run(preprocess, ct, labels=ct / "labels.csv", size=weights.architecture["size"], output=data)
        run(predict, data, model=[model], output=predicted)
        evaluated = run(evaluate, [predicted], report=folder / "report")
        predictions = predictions_format.read(predicted)
        case, covid = _surest_covid(predictions), Diagnosis.COVID.label
        explained = run(gradcam, data, model=model, case=case, diagnosis=covid, output=folder / "heatmap")
        (report,) = next(iter(evaluated.reports.values())).values()
        montage = (folder / "heatmap" / MONTAGE).read_bytes()
        write_file(folder / PAGE, demo_page(steps, report, predictions, explained, montage, weights).encode())
    auc, accuracy = report.covid.auc.value, report.accuracy.value
    return DemoResult(output / PAGE, report.cases, auc, accuracy, perf_counter() - began)


def _typed(name: str, arguments: tuple[Any, ...], options: dict[str, Any], folder: Path) -> str:
    """The command line that does the same, within the folder."""

    def words(value: Any) -> list[str]:
        values = value if isinstance(value, list) else [value]
        return [str(one.relative_to(folder) if isinstance(one, Path) else one) for one in values]

    line = ["ucadi", name, *(word for argument in arguments for word in words(argument))]
    for option, value in options.items():
        line += [word for one in words(value) for word in ("--" + option.replace("_", "-"), one)]
    return shlex.join(line)


def _surest_covid(predictions: Predictions) -> str:
    """The id of the case with COVID-19 that has the highest probability of it."""
    scores = np.where(predictions.labels == Diagnosis.COVID, predictions.mean[:, Diagnosis.COVID], -1.0)
    return predictions.cases[int(scores.argmax())]
