"""Elements of an XML file that nobody vouches for: no document types, so no entities, and few levels."""

from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from segmenter.errors import UserError, cleaned

LARGEST = 2**30  # bytes
DEEPEST = 32  # levels
CHUNK = 2**20


class _Refused(Exception):
    """Something that no file of annotations holds."""


def read_xml(path: Path, only_root: bool = False) -> Element:
    """The root element of a file, with all that it holds or (`only_root`) nothing.

    Raises:
        UserError: it is no XML, or holds a document type, or more levels or bytes than annotations have.
    """
    builder, parser, levels = TreeBuilder(), expat.ParserCreate(), 0
    roots: list[Element] = []

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal levels
        levels += 1
        if levels > DEEPEST:
            raise _Refused(f"it has more than {DEEPEST} levels")
        element = builder.start(tag, attributes)
        if levels == 1:
            roots.append(element)

    def end(tag: str) -> None:
        nonlocal levels
        levels -= 1
        builder.end(tag)

    def doctype(*_: object) -> None:
        raise _Refused("it declares a document type, which annotations do not have")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = builder.data, doctype
    parser.buffer_text = True
    try:
        if not path.is_file() or path.stat().st_size > LARGEST:  # to open a pipe would wait for ever
            raise _Refused(f"it is no regular file, or has more than {LARGEST >> 20} MB")
        with path.open("rb") as file:
            while content := file.read(CHUNK):
                parser.Parse(content, False)
                if only_root and roots:
                    return roots[0]
            parser.Parse(b"", True)
    except (expat.ExpatError, _Refused, ValueError, LookupError) as error:
        raise UserError(f"{path} cannot be read as XML: {cleaned(str(error), 200)}; export it again") from None
    return roots[0]
