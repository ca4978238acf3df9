"""The ranges that settings have: types for the fields of dataclasses and for the arguments of functions.

Fields are checked on reading, arguments by `checked`, before a function begins. Upper ends are far above anything that
trains; they keep a slip of the keyboard from asking for the whole machine.
"""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from functools import cache, wraps
from typing import Annotated, ParamSpec, TypeVar, get_args, get_type_hints

from annotated_types import Interval

from segmenter.errors import UserError, shown

Given = ParamSpec("Given")
Answer = TypeVar("Answer")

Count = Annotated[int, Interval(ge=1, le=10**9)]
Natural = Annotated[int, Interval(ge=0, le=10**9)]
Batch = Annotated[int, Interval(ge=1, le=2**16)]
Pixels = Annotated[int, Interval(ge=1, le=2**16)]
Channels = Annotated[int, Interval(ge=1, le=2**16)]
Layers = Annotated[int, Interval(ge=0, le=1000)]
Processes = Annotated[int, Interval(ge=0, le=1000)]
ClassCount = Annotated[int, Interval(ge=1, le=2**16 - 1)]  # what a mask of 16 bits tells apart
Images = Annotated[int, Interval(ge=1, le=2**12)]  # that pass through a network together
Drawn = Annotated[int, Interval(ge=32, le=2**13)]  # a side of a drawn photo, which has 200 MB then
Seconds = Annotated[float, Interval(ge=0, le=86400)]
Seed = Annotated[int, Interval(ge=0, lt=2**63)]  # what torch's generators take
AtLeastOne = Annotated[float, Interval(ge=1, le=1e6)]
NonNegative = Annotated[float, Interval(ge=0, le=1e37)]
Positive = Annotated[float, Interval(gt=0, le=1e37)]  # optimisers multiply rates by up to ten; float32 ends at 3e38
Probability = Annotated[float, Interval(ge=0, le=1)]
Factor = Annotated[float, Interval(gt=0, le=1)]
Fraction = Annotated[float, Interval(ge=0, lt=1)]


def checked(function: Callable[Given, Answer]) -> Callable[Given, Answer]:
    """A function that refuses arguments outside the ranges in their annotations, settings in dataclasses included.

    Raises (when called):
        UserError: an argument is outside its range.
    """

    @wraps(function)
    def guarded(*arguments: Given.args, **named: Given.kwargs) -> Answer:
        given, hints = inspect.signature(function).bind(*arguments, **named).arguments, _hints(function)
        for name, value in given.items():
            refuse_outside(value, hints.get(name), _called(hints.get(name), name))
        return function(*arguments, **named)

    return guarded


def _called(hint: object, name: str) -> str:
    """The name that an argument has on the command line, where its annotation says so."""
    told = (getattr(about, "name", None) for about in getattr(hint, "__metadata__", ()))
    return next((other for other in told if other is not None), name)


def refuse_outside(value: object, hint: object, place: str) -> None:
    """Checks that a value, or every item or field of it, is inside the range of its annotation, if it has one.

    Raises:
        UserError: it is not; `place` says where.
    """
    if is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            name = f"{place}.{field.name}" if place else field.name
            refuse_outside(getattr(value, field.name), _hints(type(value))[field.name], name)
    elif value is not None and (allowed := _range(hint)) is not None:
        whole = any(part is int for part in _parts(hint))
        for number in value if isinstance(value, tuple | list) else (value,):
            if not _inside(number, allowed, whole):
                text = " ".join(map(shown, value)) if isinstance(value, tuple | list) else shown(value)
                raise UserError(f"{place} is {text}; write a value {words(allowed)}")


def _inside(number: object, allowed: Interval, whole: bool) -> bool:
    try:
        if whole and number != int(number):
            return False
        above = number > allowed.gt if allowed.gt is not None else number >= allowed.ge
        return bool(above and (number < allowed.lt if allowed.lt is not None else number <= allowed.le))
    except (TypeError, ValueError, OverflowError):  # no number; nan; infinity
        return False


@cache
def _hints(kind: type | Callable) -> dict[str, object]:
    return get_type_hints(kind, include_extras=True)


def of_field(kind: type, name: str) -> Interval:
    """The range of a dataclass's field, or of the items of a field that is a tuple."""
    if (allowed := _range(_hints(kind)[name])) is None:
        raise KeyError(name)
    return allowed


def _range(hint: object) -> Interval | None:
    for part in _parts(hint):
        if allowed := [about for about in getattr(part, "__metadata__", ()) if isinstance(about, Interval)]:
            return allowed[0]
    return None


def _parts(hint: object) -> Iterator[object]:
    """A type and, of unions, tuples and annotated ones, those that it is made of."""
    yield hint
    for part in get_args(hint):
        if part is not Ellipsis and not isinstance(part, Interval):
            yield from _parts(part)


def words(allowed: Interval) -> str:
    """A range for a sentence: "write a value ..."."""
    joined, low = (" and", f"above {allowed.gt:g}") if allowed.gt is not None else (" to", f"from {allowed.ge:g}")
    if allowed.lt is not None:
        return f"{low}{joined} less than {_number(allowed.lt)}"
    return f"{low}{joined}{' at most' if allowed.gt is not None else ''} {_number(allowed.le)}"


def _number(value: float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
