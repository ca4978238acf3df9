"""The demo: train from scratch on generated scenes, score on unseen ones, write label maps and overlays."""

from pathlib import Path

from PIL import Image

from segmenter import atomic, recipes
from segmenter.data.scenes.scene import render
from segmenter.data.tasks import TASKS
from segmenter.evaluation.evaluate import evaluate
from segmenter.evaluation.metrics import Scores
from segmenter.progress import Progress
from segmenter.published.loading import load
from segmenter.training.loop import train
from segmenter.views.pictures import predict_files

PICTURES = 8
PICTURE_SIZE = (192, 256)  # twice the training size: predictions have the photo's own size


def demo(out: Path, device: str = "auto") -> Scores:
    """Makes, on a device, the run `out`/run and pictures of some test scenes beside it; returns the test scores.

    Raises:
        UserError: `out` holds an earlier demo, or there is no such device.
    """
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
    print(scores.table())
    print(f"test mIoU {scores.mean_iou:.3f} on {len(test)} scenes never seen")
    print(f"model {out / 'run'}, scenes {photos}, label maps {out / 'labels'}, overlays {out / 'overlays'}")
    return scores
