"""The plots of the report as SVG text for a page: no dates, no script, the page's own colours and
font.

Equal reports give equal text. Each plot is drawn for a width in CSS pixels, so that its type has
the size of the page's type.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from xml.sax.saxutils import escape

from orchestrator.reporting.words import chain, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Stand-ins while drawing; the page's stylesheet gives each its colour, in light and in dark. Blue
# and orange are told apart by every kind of colour vision.
INK, MUTED, RULE, ACCENT, WARM, PAPER = (
    "#010101",
    "#020202",
    "#030303",
    "#040404",
    "#050505",
    "#060606",
)
_VARIABLES: Final = {
    INK: "--ink",
    MUTED: "--muted",
    RULE: "--rule",
    ACCENT: "--accent",
    WARM: "--warm",
    PAPER: "--paper",
}
_SIZE: Final = 12.0
_SMALL: Final = 11.0
_CLEAR: Final = {"facecolor": PAPER, "edgecolor": "none", "pad": 1.5}
"""Behind text that a rule would cross."""
NARROW: Final = 480
"""Below this width labels stand above their row instead of beside it."""

Rows = Sequence[Mapping[str, Any]]


def equal_bits(rows: Rows, width: int, name: str) -> str:
    """Draws validation and test accuracy of each row: a dot at the mean, a bar of one standard
    deviation to each side, a tick for every seed.
    """
    narrow = width < NARROW
    left = 4 if narrow else _label_room(rows)
    step = 42 if narrow else 28
    gap = 18 if narrow else 34
    panel = (width - left - gap - 8) / 2
    height = 34 + step * len(rows) + 34
    low, high = _limits(
        [value for row in rows for key in ("validation", "test") for value in _reach(row, key)]
    )
    with _figure(width, height) as (figure, out):
        for column, (key, title) in enumerate(
            (("validation", "Validation, chooses the leader"), ("test", "Test, last epoch"))
        ):
            axes = _axes(figure, left + column * (panel + gap), 34, panel, step * len(rows))
            axes.set_xlim(low, high)
            axes.set_ylim(len(rows) - 0.5, -0.5)
            _ruled(axes)
            axes.set_title(
                title if not narrow else title.split(",")[0],
                loc="left",
                fontsize=_SIZE,
                color=INK,
                pad=10,
                fontweight="bold",
            )
            for place, row in enumerate(rows):
                _dot(axes, row, key, place + (0.16 if narrow else 0))
                if column == 0:
                    _row_label(axes, row["label"], place, narrow, 34 if not narrow else 50)
            base = next((row for row in rows if row["is_baseline"]), None)
            if base is not None and base[key]["mean"] is not None:
                axes.axvline(
                    base[key]["mean"], color=INK, linewidth=0.8, linestyle=(0, (3, 3)), zorder=1
                )
        out.append(_svg(figure, name))
    return out[0]


def curves(rows: Rows, others: Rows, width: int, name: str) -> str:
    """Draws test accuracy against bits, a panel for each of `rows`: mean and a band of one standard
    deviation; all of `others` in grey behind.
    """
    columns = max(1, min(len(rows), 2 if width < NARROW else 4))
    lines = -(-len(rows) // columns)
    left, gap, head, tall = 34, 16, 50, 120
    panel = (width - left - 6 - gap * (columns - 1)) / columns
    low, high = _limits([value for row in [*rows, *others] for value in _band(row)])
    most = max(bits for row in [*rows, *others] for bits in row["stage_bits"])
    base = next((row for row in [*rows, *others] if row["is_baseline"]), None)
    with _figure(width, lines * (head + tall) + 38) as (figure, out):
        for place, row in enumerate(rows):
            line, column = divmod(place, columns)
            axes = _axes(
                figure, left + column * (panel + gap), head + line * (head + tall), panel, tall
            )
            axes.set_xlim(0, most * 1.06)
            axes.set_ylim(low, high)
            _ruled(axes, both=True)
            axes.tick_params(labelleft=column == 0, labelbottom=place + columns >= len(rows))
            _grey(axes, others)
            if base is not None:
                axes.axhline(
                    base["test_stages"][-1],
                    color=INK,
                    linewidth=0.8,
                    linestyle=(0, (3, 3)),
                    zorder=2,
                )
            _curve(axes, row)
            axes.text(
                0,
                1,
                _short(row["label"], int(panel / 8.2)),
                transform=_above(axes, 20),
                color=INK,
                fontsize=_SIZE,
                va="bottom",
                fontweight="bold",
            )
            axes.text(
                0,
                1,
                _fitting_chain(row["test_stages"], panel),
                transform=_above(axes, 6),
                color=MUTED,
                fontsize=_SMALL,
                va="bottom",
            )
        figure.text(
            1 - 6 / width,
            2 / (lines * (head + tall) + 38),
            "bits spent",
            ha="right",
            va="bottom",
            color=MUTED,
            fontsize=_SMALL,
        )
        out.append(_svg(figure, name))
    return out[0]


def guesses(rows: Rows, even: Mapping[str, float] | None, width: int, name: str) -> str:
    """Draws the accuracy of the guesses in each round with the break-even line, if there is one,
    and how many were answered yes and no.
    """
    narrow = width < NARROW
    left, right = (4, 78) if narrow else (_label_room(rows), 104)
    heights = [16 * len(row["rounds"]) + (26 if narrow else 12) for row in rows]
    total = sum(heights)
    with _figure(width, 36 + total + 30) as (figure, out):
        axes = _axes(figure, left, 36, width - left - right, total)
        axes.set_xlim(0, 104)
        axes.set_ylim(total, 0)
        _ruled(axes)
        if even is not None:
            axes.axvline(even["per_bit"], color=WARM, linewidth=1.4, zorder=2)
            axes.text(
                even["per_bit"],
                1,
                f"break-even {number(even['per_bit'])} %",
                transform=_above(axes, 8, data_x=True),
                color=WARM,
                fontsize=_SMALL,
                ha="center",
                va="bottom",
            )
        axes.text(
            1,
            1,
            "yes / no",
            transform=_above(axes, 8, shift=right - 6),
            color=MUTED,
            fontsize=_SMALL,
            ha="right",
            va="bottom",
        )
        top = 0.0
        for row, height in zip(rows, heights, strict=True):
            first = top + (30 if narrow else 14)
            if narrow:
                axes.text(
                    0,
                    top + 14,
                    _short(row["label"], 50),
                    color=INK,
                    fontsize=_SIZE,
                    va="center",
                    bbox=_CLEAR,
                    zorder=6,
                )
            else:
                axes.text(
                    0,
                    top + height / 2,
                    _short(row["label"], 34),
                    transform=_beside(axes, -12),
                    color=INK,
                    fontsize=_SIZE,
                    ha="right",
                    va="center",
                )
            for item in row["rounds"]:
                _guess(axes, item, first + 16 * (item["round"] - 1), right - 6)
            top += height
            axes.axhline(top, color=RULE, linewidth=0.6, zorder=0)
        out.append(_svg(figure, name))
    return out[0]


def _dot(axes: Axes, row: Mapping[str, Any], key: str, place: float) -> None:
    mean, std = row[key]["mean"], row[key]["std"]
    if mean is None:
        return
    colour = ACCENT if row["is_leader"] else INK if row["is_baseline"] else MUTED
    seeds = [seed[key] for seed in row["per_seed"] if seed[key] is not None]
    axes.scatter(
        seeds,
        [place] * len(seeds),
        s=70,
        color=colour,
        marker="|",
        alpha=0.55,
        linewidths=1.2,
        zorder=3,
    )
    if std is not None:
        axes.plot(
            [mean - std, mean + std],
            [place, place],
            color=colour,
            linewidth=1.8,
            solid_capstyle="round",
            zorder=4,
        )
    axes.scatter(
        [mean],
        [place],
        s=70,
        color=colour,
        marker="D" if row["is_baseline"] else "o",
        edgecolors=PAPER,
        linewidths=1.4,
        zorder=5,
    )


def _grey(axes: Axes, rows: Rows) -> None:
    """All curves as one thing to draw: one by one they take most of the time of a long search's
    page.
    """
    from matplotlib.collections import LineCollection

    curves = [
        [
            (bits, mean)
            for bits, mean in zip(row["stage_bits"], row["test_stages"], strict=True)
            if mean is not None
        ]
        for row in rows
    ]
    drawn = [curve for curve in curves if len(curve) > 1]
    if drawn:
        axes.add_collection(
            LineCollection(drawn, colors=RULE, linewidths=1.2, zorder=1), autolim=False
        )


def _curve(axes: Axes, row: Mapping[str, Any]) -> None:
    colour = ACCENT if row["is_leader"] else INK
    points = [
        (bits, mean, std)
        for bits, mean, std in zip(
            row["stage_bits"], row["test_stages"], row["stage_std"], strict=True
        )
        if mean is not None
    ]
    if not points:
        return
    bits, means, stds = zip(*points, strict=True)
    if len(points) > 1 and all(std is not None for std in stds):
        low, high = (
            [mean + sign * std for mean, std in zip(means, stds, strict=True)] for sign in (-1, 1)
        )
        axes.fill_between(bits, low, high, color=colour, alpha=0.18, linewidth=0, zorder=3)
    elif stds[0] is not None:
        axes.plot(
            [bits[0]] * 2,
            [means[0] - stds[0], means[0] + stds[0]],
            color=colour,
            linewidth=1.6,
            zorder=3,
        )
    axes.plot(bits, means, color=colour, linewidth=1.8, zorder=4)
    axes.scatter(
        bits,
        means,
        s=24,
        color=colour,
        edgecolors=PAPER,
        linewidths=1,
        marker="D" if row["is_baseline"] else "o",
        zorder=5,
        clip_on=False,
    )


def _guess(axes: Axes, item: Mapping[str, Any], place: float, shift: float) -> None:
    """Draws one round: its number in a circle at its accuracy."""
    mean, std = item["guess_accuracy"]["mean"], item["guess_accuracy"]["std"]
    if mean is None:
        return
    if std is not None:
        axes.plot(
            [mean - std, mean + std],
            [place, place],
            color=ACCENT,
            linewidth=1.6,
            solid_capstyle="round",
            zorder=3,
        )
    axes.scatter([mean], [place], s=120, color=PAPER, edgecolors=ACCENT, linewidths=1.3, zorder=4)
    axes.text(
        mean,
        place,
        str(item["round"]),
        color=INK,
        fontsize=9,
        ha="center",
        va="center_baseline",
        zorder=5,
    )
    answers = f"{number(item['yes'], 0)} / {number(item['no'], 0)}"
    axes.text(
        1,
        place,
        answers,
        transform=_beside(axes, shift),
        color=INK,
        fontsize=_SMALL,
        ha="right",
        va="center",
    )


def _row_label(axes: Axes, label: str, place: int, narrow: bool, length: int) -> None:
    from matplotlib.transforms import blended_transform_factory

    across = blended_transform_factory(axes.transAxes, axes.transData)
    if narrow:
        axes.text(
            0,
            place - 0.26,
            _short(label, length),
            transform=across,
            color=INK,
            fontsize=_SIZE,
            va="center",
            bbox=_CLEAR,
            zorder=6,
        )
    else:
        axes.text(
            0,
            place,
            _short(label, length),
            transform=_beside(axes, -12),
            color=INK,
            fontsize=_SIZE,
            ha="right",
            va="center",
        )


def _label_room(rows: Rows) -> int:
    """Pixels to the left of a plot for the longest label, within reason."""
    return 24 + round(6.6 * min(34, max(len(row["label"]) for row in rows)))


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def _fitting_chain(stages: Sequence[float | None], room: float) -> str:
    text = chain(stages)
    return text if len(text) * 6.2 <= room else f"{number(stages[0])} → … → {number(stages[-1])}"


def _reach(row: Mapping[str, Any], key: str) -> list[float]:
    mean, std = row[key]["mean"], row[key]["std"]
    seeds = [seed[key] for seed in row["per_seed"] if seed[key] is not None]
    return seeds + ([] if mean is None else [mean - (std or 0), mean + (std or 0)])


def _band(row: Mapping[str, Any]) -> list[float]:
    pairs = zip(row["test_stages"], row["stage_std"], strict=True)
    return [mean + sign * (std or 0) for mean, std in pairs if mean is not None for sign in (-1, 1)]


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Limits with some air, inside 0 to 100 percent and never of zero width."""
    low, high = min(values, default=0.0), max(values, default=100.0)
    air = max(0.06 * (high - low), 0.5)
    return max(0.0, low - air), min(100.5, high + air)


def _ruled(axes: Axes, *, both: bool = False) -> None:
    """Draws light rules behind and no frame: the eye goes to the dots."""
    from matplotlib.ticker import MaxNLocator

    axes.grid(axis="both" if both else "x", color=RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.tick_params(length=0, labelsize=_SMALL, labelcolor=MUTED, pad=6)
    axes.xaxis.set_major_locator(MaxNLocator(3 if both else 5, steps=[1, 2, 5, 10]))
    if both:
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    else:
        axes.set_yticks([])


def _above(axes: Axes, points: float, *, data_x: bool = False, shift: float = 0) -> Any:
    """Coordinates across the axes, `points` pixels above their top."""
    from matplotlib.transforms import ScaledTranslation, blended_transform_factory

    across = blended_transform_factory(axes.transData, axes.transAxes) if data_x else axes.transAxes
    return across + ScaledTranslation(shift / 72, points / 72, axes.figure.dpi_scale_trans)


def _beside(axes: Axes, points: float) -> Any:
    """Across the axes from 0 to 1 and `points` pixels further to the right, in data coordinates
    upwards.
    """
    from matplotlib.transforms import ScaledTranslation, blended_transform_factory

    return blended_transform_factory(axes.transAxes, axes.transData) + ScaledTranslation(
        points / 72, 0, axes.figure.dpi_scale_trans
    )


def _axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at a place in pixels, counted from the figure's upper left corner."""
    wide, tall = (72 * inches for inches in figure.get_size_inches())
    axes = figure.add_axes((left / wide, 1 - (top + height) / tall, width / wide, height / tall))
    axes.patch.set_visible(False)
    return axes


@contextmanager
def _figure(width: int, height: float) -> Iterator[tuple[Figure, list[str]]]:
    """Opens a figure under fixed settings, whatever the machine's are; the block appends what it
    has drawn to the list.
    """
    import matplotlib
    from matplotlib.figure import Figure as NewFigure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        # Names are shown as they are: a dollar sign in a case's name is no formula.
        matplotlib.rcParams.update(
            {
                "svg.fonttype": "none",
                "svg.hashsalt": "orchestrate",
                "text.parse_math": False,
                "figure.dpi": 72,
            }
        )
        figure = NewFigure(figsize=(width / 72, height / 72), dpi=72)
        figure.patch.set_visible(False)
        yield figure, []


def _svg(figure: Figure, name: str) -> str:
    """The figure as an <svg> element in the page's colours and font, its ids made unique by
    `name`.
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    FigureCanvasSVG(figure)
    out = io.StringIO()
    with warnings.catch_warnings():
        # Letters are measured by matplotlib's font and drawn by the page's: one that the former
        # lacks is no news to anyone.
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
        figure.savefig(
            out,
            format="svg",
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
            transparent=True,
        )
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Tags only: a name between them may look like anything.
    text = re.sub(r"<[^>]*>", lambda tag: _themed(tag.group(), name), text)
    caption = name.rpartition("-")[0]
    return text.replace("<svg", f'<svg role="img" aria-labelledby="{caption}-caption"', 1).strip()


def as_file(drawing: str, *, title: str, css: str) -> str:
    """Makes an <svg> element of this module a file of its own, which any program for pictures
    shows: it has a size and a title, and the colours of the light page in place of variables.

    Args:
        css: where the variables are set, those of the light page first.
    """
    opening, rest = drawing.split(">", 1)
    view = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', opening)
    assert view is not None, "every drawing says its size"
    opening = re.sub(r'aria-labelledby="[^"]*"', f'width="{view[1]}" height="{view[2]}"', opening)
    values: dict[str, str] = {}
    for name, value in re.findall(r"(--[a-z-]+): ([^;]+);", css):
        # It stands in an attribute, whose quotes are double.
        values.setdefault(f"var({name})", value.replace('"', "'"))

    def filled(tag: re.Match[str]) -> str:
        return re.sub(r"var\([a-z-]+\)", lambda variable: values[variable.group()], tag.group())

    # Tags only: a name between them may look like anything.
    rest = re.sub(r"<[^>]*>", filled, rest)
    paper = f'<rect width="100%" height="100%" fill="{values[f"var({_VARIABLES[PAPER]})"]}"/>'
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n{opening}>\n<title>{escape(title)}</title>\n'
        f"{paper}{rest}\n"
    )


def _themed(tag: str, name: str) -> str:
    """One tag of a drawing with unique ids, the page's colours and font, and no size of its own."""
    if tag.startswith("<svg"):
        tag = re.sub(r' (?:width|height)="[^"]*"', "", tag)
    tag = re.sub(r'\bid="', f'id="{name}-', tag)
    tag = re.sub(r'(href="#|url\(#)', rf"\1{name}-", tag)
    tag = re.sub(r"font: ((?:[a-z0-9]+ )*)([\d.]+)px [^;\"]*", r"font: \1\2px var(--font)", tag)
    tag = re.sub(r"font-family: [^;\"]*", "font-family: var(--font)", tag)
    for stand_in, variable in _VARIABLES.items():
        tag = tag.replace(stand_in, f"var({variable})")
    return tag
