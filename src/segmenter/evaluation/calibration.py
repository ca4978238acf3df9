"""How far confidence can be trusted: of the pixels that a model is 80 % sure of, are 80 % right?

Expected calibration error with BINS bins of equal width over all labelled pixels (arXiv 1706.04599, section 2), and one
temperature (section 4.2), fitted to the masks of val, which changes no label.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from segmenter import config, upsample
from segmenter.data.samples import DataSet, Sample
from segmenter.errors import UserError
from segmenter.evaluation.inputs import Loaded, chosen, labelled_passes, opened, streamed
from segmenter.evaluation.kept_labels import BINS
from segmenter.evaluation.reliability import expected_error, image_bins
from segmenter.evaluation.temperature import SomePixels
from segmenter.inference.mode import evaluating
from segmenter.inference.passes import effective_settings
from segmenter.model.segmenter import Segmenter
from segmenter.ranges import Processes, checked
from segmenter.upsample.probabilities import Passes


@dataclass(frozen=True)
class Calibration:
    """A temperature, and how far confidence was and is from the share of pixels that are right."""

    temperature: float
    earlier: float
    """The model's temperature before."""
    before: dict[str, np.ndarray]
    """Bins (BINS 3) of each split at the earlier temperature."""
    after: dict[str, np.ndarray]

    def to_dict(self) -> dict:
        """Plain numbers for JSON."""
        splits = {
            split: {
                "pixels": int(bins[:, 0].sum()),
                "pixel_accuracy": float(bins[:, 2].sum() / max(bins[:, 0].sum(), 1)),
                "error_before": expected_error(bins),
                "error_after": expected_error(self.after[split]),
                "bins_before": bins.tolist(),
                "bins_after": self.after[split].tolist(),
            }
            for split, bins in self.before.items()
        }
        return {"temperature": self.temperature, "temperature_before": self.earlier, "splits": splits}

    def table(self) -> str:
        """The errors for people, in percent."""
        kept = self.temperature == self.earlier
        lines = [
            f"temperature {self.temperature:g}" + (": no other is better" if kept else f" (before {self.earlier:g})"),
            "expected calibration error, %    before   after",
        ]
        for split, bins in self.before.items():
            before, after = 100 * expected_error(bins), 100 * expected_error(self.after[split])
            lines.append(f"{split:30}  {before:7.2f} {after:7.2f}")
        return "\n".join(lines)


@checked
def calibrate(
    model: Segmenter,
    data: str | Path | config.Data | DataSet,
    multiscale: bool = False,
    native: bool = False,
    split: str = "val",
    inference: config.Inference | None = None,
    workers: Processes = 0,
    show: bool = True,
) -> Calibration:
    """Fits the temperature of a model's probabilities to masks that it has not learnt from, and sets it.

    `model.temperature` is what `result.confidence()` and `result.probabilities()` use from then on; `model.save` keeps
    it. Labels, and so all scores of them, stay as they are. Where the masks do not show that it is wrong, so does it.

    >>> model = segmenter.load("runs/first")
    >>> found = segmenter.calibrate(model, "photos", show=False)
    >>> found.temperature == model.temperature, sorted(found.after)
    (True, ['test', 'val'])

    Args:
        model: of labels, in any mode.
        data: a folder, which is split according to the model's recipe, or the result of `segmenter.open_data`.
        multiscale: fit the probabilities of predictions at six scales and their mirror images.
        native: keep the images' scale, even if the settings do not say so.
        split: whose masks are fitted; the error is also measured on test where it has masks.
        inference: windows and scale; None: those of the model's recipe.
        workers: processes that load images.
        show: a progress bar.

    Returns:
        A `Calibration` with `temperature` and the bins of each split before and after; it has `to_dict()` and
        `table()`.

    Raises:
        UserError: the model is one of depth; the data cannot be opened, has other classes, no such split or no masks
            in it; or one of the samples cannot be read.
    """
    if model.recipe.task != "labels":
        raise UserError(
            f"the model predicts {model.recipe.task}, without probabilities, so that there is nothing to calibrate; "
            "choose a model of labels"
        )
    data = data if isinstance(data, DataSet) else opened(model, data)
    splits = {split: _labelled(model, data, split)}
    if split != "test" and any(sample.labelled for sample in data.splits.get("test", ())):
        splits["test"] = _labelled(model, data, "test")
    look = partial(
        _labelled_passes,
        model,
        multiscale=multiscale,
        settings=effective_settings(model, inference, native),
        workers=workers,
        show=show,
    )
    with evaluating(model):
        return _calibrated(model, splits, split, look)


def _calibrated(model: Segmenter, splits: dict[str, Sequence[Sample]], fitted: str, look: partial) -> Calibration:
    """Sets the temperature that fits a split; `look` gives the passes over samples."""
    classes, ignore, earlier = len(model.classes), model.classes.ignore, model.temperature
    pixels = SomePixels(classes, len(splits[fitted]), ignore)
    for number, passes, truth in look(splits[fitted], title="calibrate"):
        pixels.add(number, passes, truth)
    if not pixels.count:
        raise UserError(f"every pixel of the masks in {fitted} is ignored; choose another split")
    found = pixels.temperature(earlier)
    before, after = {}, {}
    for split, samples in splits.items():
        before[split], after[split] = np.zeros((2, BINS, 3))
        for _, passes, truth in look(samples, title=f"check on {split}"):
            labels, top = upsample.confidence(passes, earlier)
            before[split] += image_bins(top, labels, truth, ignore)
            if found != earlier:
                top = upsample.probability_of(passes, labels, found)
            after[split] += image_bins(top, labels, truth, ignore)
        if split == fitted and expected_error(after[split]) >= expected_error(before[split]):
            found, after[split] = earlier, before[split]  # for this measure, it was as good as a temperature makes it
    model.temperature = found
    return Calibration(found, earlier, before, after)


def _labelled(model: Segmenter, data: DataSet, split: str) -> Sequence[Sample]:
    """The samples of a split whose masks are known."""
    samples = [sample for sample in chosen(model, data, split).samples if sample.labelled]
    if not samples:
        others = [name for name, found in data.splits.items() if any(sample.labelled for sample in found)]
        remedy = f"; choose another split: {', '.join(others)}" if others else ""
        raise UserError(f"{split} of {data.settings.root} has no masks to fit the temperature to{remedy}")
    return samples


@torch.inference_mode()
def _labelled_passes(
    model: Segmenter,
    samples: Sequence[Sample],
    multiscale: bool,
    settings: config.Inference,
    workers: int,
    title: str,
    show: bool,
) -> Iterator[tuple[int, Passes, Tensor]]:
    """The place of each sample, the passes over its image, and its mask (H W) on the model's device."""
    device = next(model.parameters()).device
    with streamed(model, samples, settings, multiscale, workers, title, show) as stream:
        images = (Loaded(place, image, truth, None) for place, (image, truth) in enumerate(stream))
        for passes, image in labelled_passes(model, images, settings, multiscale):
            yield image.place, passes, image.target.to(device)
