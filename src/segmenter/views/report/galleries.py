"""The images of an evaluation that are worth a look, as their models see them now."""

from collections.abc import Mapping

import numpy as np

from segmenter.data.samples import Sample
from segmenter.errors import cleaned
from segmenter.evaluation.bootstrap import Kept
from segmenter.evaluation.kept_labels import KeptLabels
from segmenter.inference.predict import predict
from segmenter.model.segmenter import Segmenter
from segmenter.views.report.choosing import Choice, choices, first
from segmenter.views.report.page import Gallery, Picture
from segmenter.views.report.tasks import TASKS, Task

Samples = Mapping[str, Sample]


def notable(kept: Kept) -> list[Choice]:
    """Worst, least sure and best images of an evaluation."""
    name, measure = next(iter(TASKS[kept.task].measures.items()))
    confidence = kept.confidence if isinstance(kept, KeptLabels) else np.full(len(kept), np.nan)
    return choices(kept.per_image[name], confidence, measure.title)


def galleries(kept: Kept, model: Segmenter, samples: Samples) -> list[Gallery]:
    """The notable images that are among the samples."""
    found = []
    for choice in notable(kept):
        there = [i for i in choice.images if kept.names[i] in samples]
        shown = [picture(samples[kept.names[i]], {"": model}, TASKS[kept.task], facts(kept, i)) for i in there]
        found += [Gallery(choice.title, shown, choice.note)] if shown else []
    return found


def differing(kept: Mapping[str, Kept], models: Mapping[str, Segmenter], samples: Samples) -> list[Gallery]:
    """The images, of those that all runs were evaluated on, on which the runs differ most."""
    one = next(iter(kept.values()))
    task = TASKS[one.task]
    name, measure = next(iter(task.measures.items()))
    places = [{image: i for i, image in enumerate(other.names)} for other in kept.values()]
    common = [image for image in one.names if image in samples and all(image in place for place in places)]
    if not common:
        return []
    scores = np.array([
        other.per_image[name][[place[image] for image in common]]
        for other, place in zip(kept.values(), places, strict=True)
    ])  # runs images  # fmt: skip
    shown = []
    for place in first(scores.min(0) - scores.max(0)):
        values = ", ".join(f"{run} {measure.text(score)}" for run, score in zip(kept, scores[:, place], strict=True))
        shown.append(picture(samples[common[place]], models, task, f"{measure.heading}: {values}"))
    note = f"The largest differences in the {measure.title} of an image."
    return [Gallery("Where the runs differ most", shown, note)]


def picture(
    sample: Sample, models: Mapping[str, Segmenter], task: Task, about: str = "", light: bool = False
) -> Picture:
    """One image, as models by name see it."""
    image = sample.image()
    results = {name: predict(model, image) for name, model in models.items()}
    return task.picture(cleaned(sample.name), image, sample.target(), results, about, light)


def facts(kept: Kept, place: int) -> str:
    """What an evaluation says of one image."""
    found = [
        f"{measure.title} {measure.text(value)}{' %' if measure.share else ''}"
        for name, measure in list(TASKS[kept.task].measures.items())[:2]
        if not np.isnan(value := kept.per_image[name][place])
    ]
    if isinstance(kept, KeptLabels):
        if not np.isnan(kept.confidence[place]):
            found.append(f"mean confidence {100 * kept.confidence[place]:.0f} %")
        counts = kept.confusion_of(place)
        np.fill_diagonal(counts, 0)
        if counts.any():
            true, predicted = np.unravel_index(counts.argmax(), counts.shape)
            found.append(f"most of all {kept.classes[true]} taken for {kept.classes[predicted]}")
    return ", ".join(found)
