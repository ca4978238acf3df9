"""What an evaluation found beyond the table of the classes, for people: intervals, sizes, boundaries, confusions."""

import math

from segmenter.errors import brief
from segmenter.evaluation.kept_labels import SIZES

MOST = 5  # pairs of confused classes
NAMES = {
    "mean_iou": "mean IoU",
    "mean_accuracy": "mean accuracy",
    "pixel_accuracy": "pixel accuracy",
    "boundary_iou": "boundary IoU",
    "calibration_error": "calibration error",
}


def kept_table(found: dict) -> str:
    """The content of scores.json as tables, in percent; depth in its own units."""
    return _of_depth(found) if found["task"] == "depth" else _of_labels(found)


def _of_labels(found: dict) -> str:
    measures, areas = found["measures"], found["areas"]
    wide = max(map(len, NAMES.values()))
    lines = [f"{'':{wide}}      %    95 % interval over {found['images']} images"]
    for name, title in NAMES.items():
        one = measures[name]
        lines.append(f"{title:{wide}}  {_percent(one['value'])}    {_between(one['low'], one['high'])}")
    lines += ["", "objects              IoU    95 % interval    objects  half found"]
    ranges = f"below {areas[0]}", f"to {areas[1]}", f"above {areas[1]}"
    sizes = measures["size_iou"]
    for place, size in enumerate(SIZES):
        count, value = found["objects"][size], [sizes[end][place] for end in ("value", "low", "high")]
        share = 100 * count["found"] / count["objects"] if count["objects"] else None
        lines.append(
            f"{size:6} {ranges[place]:>11}  {_percent(value[0])}  {_between(*value[1:]):>15}  {count['objects']:9}  "
            f"{'-' if share is None else f'{share:.1f}':>10}"
        )
    if found["confused"]:
        lines += ["", "most confused                       pixels  share of the class  images"]
        for pair in found["confused"][:MOST]:
            title = f"{brief(pair['true'], 14)} taken for {brief(pair['predicted'], 14)}"
            lines.append(f"{title:32} {pair['pixels']:9}  {100 * pair['share']:18.1f}  {pair['images']:6}")
    return "\n".join(lines)


def _of_depth(found: dict) -> str:
    measures, edges = found["measures"], found["edges"]
    lines = [f"{'':9}     value  95 % interval over {found['images']} images"]
    for name, one in measures.items():
        if not isinstance(one["value"], list):
            lines.append(f"{name:9}  {one['value']:8.4f}  {one['low']:.4f} to {one['high']:.4f}")
    lines += ["", "true depth, m        delta1  abs_rel    rmse"]
    rows = zip(*(measures[f"distance_{name}"]["value"] for name in ("delta1", "abs_rel", "rmse")), strict=True)
    for place, row in enumerate(rows):
        title = f"{edges[place]:g} to {edges[place + 1]:g}"
        lines.append(f"{title:18} {'  '.join('      -' if value is None else f'{value:7.4f}' for value in row)}")
    return "\n".join(lines)


def _percent(value: float | None) -> str:
    return f"{'-':>6}" if value is None or math.isnan(value) else f"{100 * value:6.2f}"


def _between(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"{100 * low:.2f} to {100 * high:.2f}"
