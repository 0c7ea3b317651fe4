"""What a chart really draws: values read back from the marks, axes and legends of its scenegraph."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import vl_convert

Group = tuple[str, ...]  # what the legends say of a mark, in the order of their titles


@dataclass
class Chart:
    """Every value is in the data's units; where the y axis has names instead of numbers, y is the nearest name."""

    lines: dict[Group, list[tuple[float, float]]] = field(default_factory=dict)  # x and y in the order of drawing
    points: list[tuple[Group, float, float | str]] = field(default_factory=list)
    bars: list[tuple[Group, float, str]] = field(default_factory=list)
    spans: list[tuple[Group, float, float, str]] = field(default_factory=list)  # from x to x
    legends: dict[str, dict[str, str | tuple]] = field(default_factory=dict)  # title -> label -> colour or dashes


def walk(node: dict) -> Iterator[tuple[dict, dict]]:
    """(mark, item) of everything below, without what belongs to axes and legends, whose items come as a whole."""
    for item in node.get("items", []):
        yield node, item
        if node.get("role") not in ("axis", "legend"):
            for child in item.get("items", []):
                yield from walk(child)


def parts(item: dict, role: str) -> list[dict]:
    """The items of this role inside an axis or a legend."""
    return [found for child in item["items"] for mark, found in walk(child) if mark.get("role") == role]


def to_number(label: str) -> float:
    return float(label.replace("\N{MINUS SIGN}", "-").replace(",", ""))


def look_of(item: dict) -> str:
    fill = item.get("fill", "transparent")
    return item["stroke"] if fill == "transparent" else fill


def read_legend(item: dict) -> dict[str, str | tuple]:
    symbols = parts(item, "legend-symbol")
    dashed = all("strokeDash" in symbol for symbol in symbols)
    looks = [tuple(symbol["strokeDash"]) if dashed else look_of(symbol) for symbol in symbols]
    labels = [label["text"] for label in parts(item, "legend-label")]
    assert len(set(looks)) == len(looks), f"these look the same: {labels}"
    return dict(zip(labels, looks, strict=True))


class Axis:
    def __init__(self, item: dict, along: str, log: bool):
        labels = [label for label in parts(item, "axis-label") if label["text"]]
        self.ticks = sorted((label[along], label["text"]) for label in labels)
        self.log = log

    def value_at(self, position: float) -> float:
        """By the two outermost ticks; where there is one tick only, its value."""
        (p0, first), (p1, last) = self.ticks[0], self.ticks[-1]
        if p0 == p1:
            return to_number(first)
        low, high = (np.log10(to_number(text)) if self.log else to_number(text) for text in (first, last))
        value = low + (position - p0) / (p1 - p0) * (high - low)
        return float(10**value if self.log else value)

    def name_at(self, position: float) -> str:
        return min(self.ticks, key=lambda tick: abs(tick[0] - position))[1]


def read_chart(spec: dict, log: bool = False, named: bool = False) -> Chart:
    """What a Vega-Lite specification draws; `log`: y is logarithmic, `named`: y has names."""
    root = vl_convert.vegalite_to_scenegraph(spec)["scenegraph"]
    drawn = list(walk(root))
    axes = [item for mark, item in drawn if mark.get("role") == "axis" and parts(item, "axis-label")]
    (bottom,) = (Axis(item, "x", False) for item in axes if item["orient"] == "bottom")
    (left,) = (Axis(item, "y", log) for item in axes if item["orient"] == "left")
    read_y = left.name_at if named else left.value_at
    legends = {
        parts(item, "legend-title")[0]["text"]: read_legend(item)
        for mark, item in drawn
        if mark.get("role") == "legend"
    }
    chart = Chart(legends=legends)

    def group_of(item: dict) -> Group:
        looks = {look_of(item), tuple(item.get("strokeDash", ()))}
        return tuple(label for title in sorted(legends) for label, look in legends[title].items() if look in looks)

    for mark, item in drawn:
        if mark.get("role") != "mark" or mark["marktype"] == "group":
            continue
        x, group = bottom.value_at(item["x"]), group_of(item)
        if mark["marktype"] == "line":
            chart.lines.setdefault(group, []).append((x, read_y(item["y"])))
        elif mark["marktype"] == "symbol":
            chart.points.append((group, x, read_y(item["y"])))
        elif mark["marktype"] == "rule":
            chart.spans.append((group, x, bottom.value_at(item["x2"]), read_y(item["y"])))
        else:
            middle = item["x"] + item["width"] / 2
            chart.bars.append((group, bottom.value_at(middle), read_y(item["y"] + item["height"] / 2)))
    return chart
