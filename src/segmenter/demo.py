"""The demo: train from scratch on generated scenes, score on unseen ones, write label maps and overlays."""

from pathlib import Path

from PIL import Image

from segmenter import atomic, recipes
from segmenter.data.apart import refuse_data
from segmenter.data.scenes.scene import render
from segmenter.data.tasks import TASKS
from segmenter.errors import UserError, cleaned
from segmenter.evaluation.evaluate import evaluate
from segmenter.evaluation.metrics import Scores
from segmenter.progress import Progress
from segmenter.published.loading import load
from segmenter.streams import tell
from segmenter.training.loop import train
from segmenter.views.pictures import predict_files

PICTURES = 8
PICTURE_SIZE = (192, 256)  # twice the training size: predictions have the photo's own size


def demo(out: Path, device: str = "auto") -> Scores:
    """Makes, on a device, the run `out`/run and pictures of some test scenes beside it; returns the test scores.

    Raises:
        UserError: `out` holds an earlier demo or something else, or there is no such device.
    """
    refuse_data([out])
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not an empty folder; choose another --out")
    recipe = recipes.read("demo")
    train(recipe, out / "run", device)
    model = load(out / "run", device)
    test = TASKS[recipe.task].open(recipe.data).split("test")
    scores = evaluate(model, test, workers=recipe.train.workers)
    photos = out / "scenes"
    for sample in Progress(test[:PICTURES], desc="draw", unit="image"):
        picture = Image.fromarray(render(sample.seed, sample.index, PICTURE_SIZE).image)
        path = photos / f"{sample.name}.png"
        atomic.write(path, lambda beside, picture=picture: picture.save(beside, format="PNG"))
    predict_files(model, [str(photos)], out)
    tell(scores.table())
    tell(f"test mIoU {scores.mean_iou:.3f} on {len(test)} scenes never seen")
    tell(cleaned(f"model {out / 'run'}, scenes {photos}, label maps {out / 'labels'}, overlays {out / 'overlays'}"))
    return scores
