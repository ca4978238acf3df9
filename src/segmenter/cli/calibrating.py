"""The verb `calibrate`: how far a model's confidence can be trusted."""

from typing import Annotated, Literal

from tyro.conf import arg

from segmenter.cli.arguments import DataFolder, Device, Model, as_json
from segmenter.cli.data_settings import DataOfModel
from segmenter.inference.presets import Preset
from segmenter.ranges import Processes, checked
from segmenter.streams import tell


@checked
def calibrate(
    run: Annotated[Model, arg(metavar="RUN")],
    data: DataFolder,
    split: Literal["val", "test", "train"] = "val",
    multiscale: bool = False,
    native: bool = False,
    preset: Preset | None = None,
    options: Annotated[DataOfModel, arg(name="data")] = DataOfModel(),  # noqa: B008  (nobody changes it)
    device: Device = "auto",
    workers: Processes = 2,
    json: bool = False,
) -> None:
    """Fit how sure a model says it is to how often it is right; no label changes, and the model keeps it.

    Args:
        run: Folder of a run or a model; one number in its config.json is written.
        data: Folder with the images and masks, or `scenes`.
        split: Whose masks it is fitted to: images that the model has not learnt from.
        multiscale: Fit predictions at six scales and their mirror images, if these are what the model is used for.
        native: Keep the photos' scale instead of bringing them to the training's.
        preset: Windows and scale as this command of the published code has them, instead of the model's own.
        options: The folder's settings, as `train` has them.
        device: Where the model runs, or cuda:1 and so on; auto: the best there is.
        workers: Processes that load images.
        json: Print JSON instead of a table.
    """
    from segmenter.evaluation.calibration import calibrate
    from segmenter.inference.presets import settings as seen_as
    from segmenter.model import folder as folders
    from segmenter.published.loading import load

    folders.read(run)
    network = load(run, device)
    inference = seen_as(preset, network.recipe) if preset else None
    settings = options.completed(data, network.recipe.data)
    found = calibrate(network, settings, multiscale, native, split, inference, workers)
    folders.write_temperature(run, found.temperature)
    tell(as_json(found.to_dict()) if json else f"{found.table()}\nkept in {run / folders.ABOUT}")
