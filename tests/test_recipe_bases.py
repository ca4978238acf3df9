"""Proves that recipes are built on others, the later above the earlier, and that wrong bases are refused."""

import pytest

from segmenter import recipes
from segmenter.errors import UserError


@pytest.fixture
def write(tmp_path):
    """Writes a recipe's file and returns its path as text."""

    def to(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return to


def refused(path: str) -> str:
    with pytest.raises(UserError) as error:
        recipes.read(path)
    return str(error.value)


def test_a_recipe_of_the_package_is_the_base(write):
    base = recipes.read("camvid")
    recipe = recipes.read(write("mine.yaml", "base: camvid\ntrain: {steps: 7}\naugment: {crop: [64, 96]}"))
    assert (recipe.train.steps, recipe.augment.crop) == (7, (64, 96))
    base.train.steps, base.augment.crop = 7, (64, 96)
    assert recipe == base


def test_a_recipe_without_settings_of_its_own_is_its_base(write):
    assert recipes.read(write("mine.yaml", "base: camvid")) == recipes.read("camvid")
    assert recipes.read(write("mine.yaml", "base: []")) == recipes.Recipe()


def test_files_beside_it_and_their_own_bases(write):
    write("low.yaml", "train: {steps: 5, lr: 0.5, seed: 3}")
    write("middle.yaml", "base: low.yaml\ntrain: {lr: 0.25}")
    recipe = recipes.read(write("top.yaml", "base: middle.yaml\ntrain: {seed: 4}"))
    assert (recipe.train.steps, recipe.train.lr, recipe.train.seed) == (5, 0.25, 4)


def test_of_several_bases_the_last_prevails(write):
    write("one.yaml", "train: {steps: 5, lr: 0.5}\nencoder: {depth: 3}")
    write("two.yaml", "train: {steps: 6}")
    recipe = recipes.read(write("top.yaml", "base: [one.yaml, two.yaml]"))
    assert (recipe.train.steps, recipe.train.lr, recipe.encoder.depth) == (6, 0.5, 3)


def test_bases_that_go_round(write):
    write("one.yaml", "base: two.yaml")
    text = refused(write("two.yaml", "base: one.yaml"))
    assert text.endswith("two.yaml; a recipe cannot be built on itself")
    assert "one.yaml: base leads back to " in text
    assert "base leads back to" in refused(write("self.yaml", "base: self.yaml"))


def test_two_bases_may_share_one(write):
    write("low.yaml", "train: {steps: 5}")
    write("one.yaml", "base: low.yaml")
    write("two.yaml", "base: low.yaml\ntrain: {lr: 0.5}")
    assert recipes.read(write("top.yaml", "base: [one.yaml, two.yaml]")).train.steps == 5


@pytest.mark.parametrize(
    ("base", "words"),
    [
        ("camvit", "there is no recipe camvit to build on; perhaps camvid"),
        ("nothing.yaml", "there is no recipe nothing.yaml to build on; `segmenter models` lists those of the package"),
        ("3", "base is 3; write the name of a recipe, or a list of names"),
        ("[camvid, {a: b}]", "base is {'a': 'b'}; write the name of a recipe, or a list of names"),
    ],
)
def test_a_base_that_is_none(write, base, words):
    path = write("mine.yaml", f"base: {base}")
    assert refused(path) == f"{path}: {words}"


def test_the_file_that_is_wrong_is_named(write):
    low = write("low.yaml", "train: {stepz: 5}")
    top = write("top.yaml", "base: low.yaml\ntrain: {lr: 0.5}")
    assert refused(top) == f"{low}: unknown setting train.stepz; did you mean train.steps?"
    write("low.yaml", "train: {steps: many}")
    assert refused(top).startswith(f"{low}: train.steps is 'many'")
    write("low.yaml", "- train")
    assert refused(top).startswith(f"{low} holds no settings")


def test_only_files_have_bases():
    with pytest.raises(UserError, match=r"config\.json: unknown setting base"):
        recipes.from_dict({"base": "camvid"}, "config.json")
