"""The files of a data folder, and the pictures among them that annotations mean.

A path in an annotation is never opened: it is compared with those of the pictures that lie in the folder. So
"../../etc/passwd", another computer's "C:\\\\photos\\\\a.jpg" and a server's address all mean a file here, or none.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote

from segmenter.data.files import SUFFIXES
from segmenter.data.folders import SPLITS
from segmenter.data.pairs import files_below
from segmenter.documents import BadDocument, parsed_json, read_text
from segmenter.errors import UserError, cleaned

LARGEST = 2**30  # bytes of a file of annotations
MOST_FILES = 5_000_000
LOOKED_AT = 5  # files that are opened to see of which format they are
WORDS = {word: split for split, words in SPLITS.items() for word in (*words, split + "s")}
SPLIT_WORD = re.compile(rf"(?:^|[^a-z])({'|'.join(sorted(WORDS, key=len, reverse=True))})(?:[^a-z]|$)")
MASK_FOLDER = re.compile(r"(.*?)[_-]?(masks?|labels?|annotations?|annot|gt|segmentation(?:class|classaug|object))$")
UPLOADED = re.compile(r"^[0-9a-f]{8}-(.+)$")  # Label Studio's names of uploaded files


class Listing:
    """The files below a folder, or a single file of annotations and the pictures around it."""

    def __init__(self, root: Path):
        """Lists the files.

        Raises:
            UserError: there are more than any data set has.
        """
        self.root = root
        self.files: list[Path] = []
        for path in files_below(root):
            self.files.append(path)
            if len(self.files) > MOST_FILES:
                raise UserError(f"{root} holds more than {MOST_FILES} files, which no data set does")
        self.broken: list[str] = []
        """What is wrong with files that were looked at to see of which format they are."""
        self._read: tuple[Path, object] | None = None

    def ending(self, *ends: str) -> list[Path]:
        """The files whose names end so, in lower case or not."""
        return [path for path in self.files if path.name.lower().endswith(ends)]

    @cached_property
    def pictures(self) -> list[Path]:
        """The files that have a picture's suffix."""
        return self.ending(*SUFFIXES)

    def json(self, path: Path) -> object:
        """The content of a JSON file; that of the last one is kept.

        Raises:
            UserError: it cannot be read as JSON.
        """
        if self._read is None or self._read[0] != path:
            self._read = None  # room for the next
            try:
                self._read = path, parsed_json(read_text(path, LARGEST))
            except (BadDocument, OSError) as error:
                raise UserError(f"{path} cannot be read as JSON: {error}; export it again, in UTF-8") from None
        return self._read[1]

    def looks(self, path: Path, alike: Callable[[object], bool]) -> bool:
        """Whether a JSON file can be read and its content is as wished."""
        try:
            return alike(self.json(path))
        except UserError as error:
            self.cannot(str(error))
            return False

    def cannot(self, sentence: str) -> None:
        """Keeps what is wrong with a file, once."""
        if sentence not in self.broken:
            self.broken.append(sentence)

    def find(self, name: object, near: Path) -> Path | None:
        """The picture that an annotation in the file `near` means by a path or an address, None where there is none.

        The more of the path's end agrees, the better; then what lies among masks comes last, and what is near first.

        Raises:
            UserError: several are as near.
        """
        if not isinstance(name, str):
            return None
        for spelling in _spellings(name):
            parts = [part for part in re.split(r"[/\\]", spelling) if part not in ("", ".", "..")]
            if not parts:
                continue
            for folder in (near.parent, self.root):
                if (path := folder.joinpath(*parts)) in self._pictures and not self._is_among_masks(path):
                    return path
            key = parts[-1].casefold()
            found = self._by_name.get(key) or self._by_stem.get(key) or []
            if found:
                return self._nearest(found, parts, near)
        return None

    def split(self, path: Path) -> str:
        """The split that the names of a file and of its folders below the root say, or nothing."""
        found = [WORDS[match[1]] for part in path.relative_to(self.root).parts if (match := _split_word(part))]
        return found[-1] if found else ""

    def _is_among_masks(self, path: Path) -> bool:
        return any(MASK_FOLDER.fullmatch(part.lower()) for part in path.relative_to(self.root).parts[:-1])

    @cached_property
    def _pictures(self) -> frozenset[Path]:
        return frozenset(self.pictures)

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        return _grouped((path.name.casefold(), path) for path in self.pictures)

    @cached_property
    def _by_stem(self) -> dict[str, list[Path]]:
        return _grouped((path.stem.casefold(), path) for path in self.pictures)

    def _nearest(self, found: list[Path], parts: list[str], near: Path) -> Path:
        if len(found) == 1:
            return found[0]

        def likeness(path: Path) -> tuple[int, int, int]:
            own = path.relative_to(self.root).parts
            masks = self._is_among_masks(path)
            beside = _common(own[:-1], near.relative_to(self.root).parts[:-1])
            return _common(own[-2::-1], parts[-2::-1]), -masks, beside

        best = max(map(likeness, found))
        nearest = [path for path in found if likeness(path) == best]
        if len(nearest) > 1:
            raise UserError(
                f"{near} names the picture {cleaned(parts[-1], 100)}, and both {nearest[0]} and {nearest[1]} may be "
                "meant; write the folder in the annotations too, or rename one"
            )
        return nearest[0]


def _split_word(part: str) -> re.Match | None:
    return SPLIT_WORD.search(part.lower())


def _spellings(name: str) -> Iterable[str]:
    """What a path may be called here: as it stands, an address without its marks, without a mark of uploading."""
    yield name
    decoded = unquote(name.partition("?d=")[2] or name.partition("?")[0])
    yield decoded
    head, slash, last = decoded.rpartition("/")
    if match := UPLOADED.match(last):
        yield head + slash + match[1]


def _common(one: Iterable[str], other: Iterable[str]) -> int:
    count = 0
    for mine, theirs in zip(one, other, strict=False):
        if mine.casefold() != theirs.casefold():
            break
        count += 1
    return count


def _grouped(pairs: Iterable[tuple[str, Path]]) -> dict[str, list[Path]]:
    found = defaultdict(list)
    for key, path in pairs:
        found[key].append(path)
    return found
