"""A JSON file with settings beside published weights: config.json, preprocessor_config.json."""

import math
from pathlib import Path

from segmenter.documents import BadDocument, read_json
from segmenter.errors import UserError, shown

CONFIG = "config.json"


def is_number(value: object) -> bool:
    """Whether a value is a finite number, and no truth value."""
    return type(value) in (int, float) and math.isfinite(value)


class JsonSettings:
    """Settings of a file, none where there is no such file. What is null counts as not stated."""

    def __init__(self, path: Path):
        """Reads `path` if it is there.

        Raises:
            UserError: it holds no settings.
        """
        self.path, self.stated = path, path.is_file()
        self._content: object = {}
        if self.stated:
            try:
                self._content = read_json(path)
            except (BadDocument, OSError) as error:
                raise UserError(f"{path} cannot be read ({error}); restore it") from error
        if not isinstance(self._content, dict):
            raise UserError(f"{path} holds no settings; restore it")

    def get(self, key: str, kind: type, default=None):
        """A value of a kind, or the default where it is not stated; whole numbers count as `float` too."""
        value = self._content.get(key)
        if value is None:
            return default
        if kind is float and is_number(value):
            return float(value)
        if kind is float or not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.wrong(key, "")
        return value

    def naturals(self, key: str) -> tuple[int, ...] | None:
        """A list of whole numbers from 0 up."""
        value = self.get(key, list)
        if value is not None and not all(type(item) is int and item >= 0 for item in value):
            raise self.wrong(key, "a list of whole numbers")
        return None if value is None else tuple(value)

    def refuse_unless(self, key: str, *known: object) -> None:
        """Checks that a setting is not stated, or has one of the known values.

        Raises:
            UserError: it has another value.
        """
        value = self._content.get(key)
        if value is not None and value not in known:
            raise self.wrong(key, f"what can be loaded has {' or '.join(map(repr, known)) or 'none'}")

    def wrong(self, key: str, wanted: str) -> UserError:
        """The error that a setting has a value that cannot be."""
        text = f"{self.path}: {key} is {shown(self._content.get(key))}"
        return UserError(f"{text}; {wanted or 'restore the file'}")
