"""The ranges that settings have: types for the fields of the dataclasses in `config`, which are checked on reading.

Upper ends are far above anything that trains; they keep a slip of the keyboard from asking for the whole machine.
"""

from typing import Annotated, get_args, get_type_hints

from annotated_types import Interval

Count = Annotated[int, Interval(ge=1, le=10**9)]
Natural = Annotated[int, Interval(ge=0, le=10**9)]
Batch = Annotated[int, Interval(ge=1, le=2**16)]
Pixels = Annotated[int, Interval(ge=1, le=2**16)]
Channels = Annotated[int, Interval(ge=1, le=2**16)]
Layers = Annotated[int, Interval(ge=0, le=1000)]
Processes = Annotated[int, Interval(ge=0, le=1000)]
Seed = Annotated[int, Interval(ge=0, lt=2**63)]  # what torch's generators take
AtLeastOne = Annotated[float, Interval(ge=1, le=1e6)]
NonNegative = Annotated[float, Interval(ge=0, le=1e37)]
Positive = Annotated[float, Interval(gt=0, le=1e37)]  # optimisers multiply rates by up to ten; float32 ends at 3e38
Probability = Annotated[float, Interval(ge=0, le=1)]
Factor = Annotated[float, Interval(gt=0, le=1)]
Fraction = Annotated[float, Interval(ge=0, lt=1)]


def of_field(kind: type, name: str) -> Interval:
    """The range of a dataclass's field, or of the items of a field that is a tuple."""
    found = [get_type_hints(kind, include_extras=True)[name]]
    for hint in found:  # grows: unions and tuples hold further types
        found += [part for part in get_args(hint) if part is not Ellipsis]
        if allowed := [part for part in getattr(hint, "__metadata__", ()) if isinstance(part, Interval)]:
            return allowed[0]
    raise KeyError(name)


def words(allowed: Interval) -> str:
    """A range for a sentence: "write a value ..."."""
    joined, low = (" and", f"above {allowed.gt:g}") if allowed.gt is not None else (" to", f"from {allowed.ge:g}")
    if allowed.lt is not None:
        return f"{low}{joined} less than {_number(allowed.lt)}"
    return f"{low}{joined}{' at most' if allowed.gt is not None else ''} {_number(allowed.le)}"


def _number(value: float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
