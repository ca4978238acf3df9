"""Proves that the Python of the README runs, with a model of the demo's kind in the demo's place."""

import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from segmenter import recipes
from segmenter.data.layouts import open_labels
from segmenter.data.scenes import scene as scenes
from segmenter.model.segmenter import Segmenter

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.usefixtures("one_thread")
def test_blocks_run_one_after_the_other(tmp_path, monkeypatch):
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) > 1
    monkeypatch.chdir(tmp_path)
    recipe = recipes.read("demo")
    torch.manual_seed(0)
    Segmenter(recipe, open_labels(recipe.data).classes).save(tmp_path / "demo" / "run")
    (tmp_path / "demo" / "scenes").mkdir()
    Image.fromarray(scenes.render(2, 0, (96, 128)).image).save("demo/scenes/test_0000.png")
    exec(compile("\n".join(blocks), "README.md", "exec"), {"__name__": "__main__"})
    assert Path("overlay.png").is_file()
