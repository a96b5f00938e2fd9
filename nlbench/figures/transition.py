"""Estimated transition matrices beside the true one, and how far they are from it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.ticker import FixedLocator, FuncFormatter

from nlbench.errors import on_one_line
from nlbench.figures import style
from nlbench.figures.options import Options, conditions_to_try, rows_of
from nlbench.figures.picture import Picture, drawn
from nlbench.figures.runs import Seeds, arrays, labels_of, notes_on_seeds, nothing_to_draw
from nlbench.results.cells import Results

# Rows that nobody has chosen.
_MOST_ROWS = 3
# Cells of at least so many millimetres have room for a number, and so many for a tick.
_ROOM_FOR_NUMBER, _ROOM_FOR_TICK = 3.4, 2.3
# Millimetres above and below the matrices, for titles, the name of the axis and the scales, and
# beside them, for the name of the row and of the axis.
_AROUND, _BESIDE = 17.0, 14.0
# With more classes, cells are pixels of a picture and no shapes of their own.
_MOST_SHAPES = 20


@dataclass(frozen=True)
class Matrices:
    """The matrices of one row, each the mean over seeds, (C, C).

    Attributes:
        true: None where it is unknown or was not stored.
        errors: of each seed, the mean absolute difference of the entries.
        told: whether the method was given its matrix.
    """

    row: str
    seeds: Seeds
    estimated: np.ndarray
    true: np.ndarray | None
    errors: tuple[float, ...]
    told: bool


@drawn
def draw(results: Results, options: Options) -> Picture:
    """Draw the true T, the estimate and the absolute difference of each row that has a T.

    Raises: NothingToDraw where no run has one.
    """
    rows = rows_of(results, options)
    condition, found = _read(results, options, rows)
    shown = _chosen(found, options)
    classes = _classes(results, condition, len(shown[0].estimated))

    seeds = {one.row: one.seeds for one in shown}
    labels = labels_of(results, seeds)
    # Most methods have no T, so that only those asked for are named.
    lacking = [row for row in rows if options.only and row not in seeds]
    without = [f"Without a T: {on_one_line(', '.join(lacking))}."] if lacking else []
    title = results.conditions[condition]
    columns = 3 if any(one.true is not None for one in shown) else 1
    beside = _BESIDE + (0.0 if _are_numbers(classes) else _widest(classes))
    size = min(60.0, (options.width - beside) / columns - 2)
    figure = Picture(
        title,
        [*_notes(shown, len(found) - len(shown), labels), *notes_on_seeds(seeds), *without],
        _in_words(shown, labels, title),
        options.width,
        _AROUND + _room_for_ticks(classes) + (size + 1.5) * len(shown),
    )
    panels = figure.panels(len(shown), columns, sharex=True, sharey=True)
    largest = max(1e-9, *(float(abs(_error(one)).max()) for one in shown))
    meshes: dict[int, QuadMesh] = {}
    for one, line in zip(shown, panels, strict=True):
        matrices = [one.estimated] if columns == 1 else [one.true, one.estimated, _error(one)]
        for place, (axes, matrix) in enumerate(zip(line, matrices, strict=True)):
            if matrix is None:
                axes.set_visible(False)
                continue
            is_error = place == 2
            meshes[place] = _draw_matrix(axes, matrix, largest if is_error else 1.0, size, is_error)
        words = style.wrapped(labels[one.row], style.NORMAL, size)
        line[0].set_ylabel("\n".join([*words, "true class"]))
        line[0].yaxis.label.set_visible(True)

    names = ("true T (%)", "estimated T (%)", "difference (points)")
    for axes, name in zip(panels[0], names[-columns:] if columns == 3 else names[1:2], strict=True):
        axes.set_title("\n".join(style.wrapped(name, style.NORMAL, size + 1)))
    for axes in panels[-1]:
        axes.set_xlabel("given label")
    _write_ticks(panels, classes, size)
    _write_scales(figure, panels, meshes)
    return figure


def _write_scales(
    figure: Picture, panels: Sequence[Sequence[Axes]], meshes: dict[int, QuadMesh]
) -> None:
    """Write one scale of colours for the matrices, and one for the differences."""
    groups = [(0, [0, 1]), (2, [2])] if len(panels[0]) > 1 else [(0, [0])]
    for first, columns in groups:
        mesh = meshes[first] if first in meshes else meshes[1]
        axes = [line[column] for line in panels for column in columns]
        bar = figure.colorbar(
            mesh, ax=axes, location="bottom", aspect=14 * len(columns), pad=0.02, shrink=0.8
        )
        bar.outline.set_linewidth(0.4)
        bar.ax.grid(False)
        highest = mesh.get_clim()[1] or 1.0
        bar.ax.xaxis.set_major_locator(FixedLocator([0, highest / 2, highest]))
        bar.ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g}"))


def _read(results: Results, options: Options, rows: Sequence[str]) -> tuple[int, list[Matrices]]:
    """Return the first condition under which rows have a T, and their matrices."""
    seen = []
    for condition in conditions_to_try(results, options):
        found = []
        for row in rows:
            seeds, by_seed = arrays(results, row, condition, ["T"])
            seen.append(seeds)
            if by_seed:
                found.append(_of_row(results, row, condition, seeds, by_seed))
        if found:
            return condition, found
    raise nothing_to_draw(
        seen,
        "T in predictions.npz",
        "Methods that estimate the transition matrix keep it, such as forward and volminnet.",
    )


def _of_row(
    results: Results,
    row: str,
    condition: int,
    seeds: Seeds,
    by_seed: dict[int, dict[str, np.ndarray]],
) -> Matrices:
    """Return the means over seeds, whose noise may differ."""
    told = any(
        "T" in record.method.get("told", []) for record in results.records_of(row, condition)
    )
    estimates = np.array([found["T"] for found in by_seed.values()])
    if not all("T_true" in found for found in by_seed.values()):
        return Matrices(row, seeds, estimates.mean(0), None, (), told)
    true = np.array([found["T_true"] for found in by_seed.values()])
    errors = tuple(float(error) for error in abs(estimates - true).mean((1, 2)))
    return Matrices(row, seeds, estimates.mean(0), true.mean(0), errors, told)


def _error(one: Matrices) -> np.ndarray:
    """Return the absolute difference of the mean matrices, of zeros where the true is unknown."""
    if one.true is None:
        return np.zeros_like(one.estimated)
    difference: np.ndarray = abs(one.estimated - one.true)
    return difference


def _chosen(found: Sequence[Matrices], options: Options) -> list[Matrices]:
    """Return the rows to draw: those asked for, else the first ones, estimates first."""
    if options.only:
        return list(found)
    estimates = [one for one in found if not one.told]
    told = [one for one in found if one.told]
    return [*estimates, *told][:_MOST_ROWS]


def _classes(results: Results, condition: int, count: int) -> list[str]:
    """Return the names of the classes, or their numbers where they have none."""
    for record in results.records_under(condition):
        names = record.classes.get("names", [])
        if len(names) == count:
            short = [on_one_line(name) for name in names]
            return [name if len(name) <= 10 else f"{name[:9]}…" for name in short]
    return [str(number) for number in range(count)]


def _draw_matrix(
    axes: Axes, matrix: np.ndarray, largest: float, size: float, is_error: bool
) -> QuadMesh:
    """Draw one matrix, with percents in its cells where there is room."""
    count = len(matrix)
    edges = np.arange(count + 1) - 0.5
    mesh = axes.pcolormesh(
        edges,
        edges,
        matrix,
        vmin=0,
        vmax=largest,
        cmap="Greys" if is_error else "Blues",
        rasterized=count > _MOST_SHAPES,
    )
    axes.set_xlim(-0.5, count - 0.5)
    axes.set_ylim(count - 0.5, -0.5)
    axes.set_aspect("equal")
    axes.grid(False)
    # On a dark page, the hair lines between the cells would be a grid.
    axes.set_facecolor("white")
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0)
    if size / count < _ROOM_FOR_NUMBER:
        return mesh

    for (row, column), value in np.ndenumerate(matrix):
        red, green, blue, _ = mesh.cmap(mesh.norm(value))
        dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
        axes.text(
            column,
            row,
            f"{100 * value:.0f}",
            # Not the colour of the page's text, because the cell has a colour of its own.
            color="#ffffff" if dark else "#000000",
            size=style.SMALL,
            ha="center",
            va="center_baseline",
        )
    return mesh


def _write_ticks(panels: Sequence[Sequence[Axes]], classes: Sequence[str], size: float) -> None:
    """Name the classes, or every so many of them."""
    count = len(classes)
    numbers = _are_numbers(classes)
    # Names fit beside rows. Below columns they stand upright, and numbers beside each other.
    widest = _widest(classes)
    across = _step(size / count, widest + 0.8 if numbers else _ROOM_FOR_TICK)
    down = _step(size / count, _ROOM_FOR_TICK)
    for axes in panels[-1]:
        axes.set_xticks(range(0, count, across), classes[::across], rotation=0 if numbers else 90)
    for line in panels:
        line[0].set_yticks(range(0, count, down), classes[::down])


def _are_numbers(classes: Sequence[str]) -> bool:
    return all(name.isdigit() for name in classes)


def _widest(classes: Sequence[str]) -> float:
    return max(style.width_of(name, style.SMALL) for name in classes)


def _room_for_ticks(classes: Sequence[str]) -> float:
    """Return the height of the ticks below the matrices, in millimetres."""
    return style.height_of(style.SMALL) if _are_numbers(classes) else _widest(classes)


def _step(cell: float, room: float) -> int:
    """Return the first of 1, 2, 5, 10, ... cells that have room for a tick."""
    step = 1
    for factor in itertools.cycle((2, 2.5, 2)):
        if cell * step >= room:
            break
        step = round(step * factor)
    return step


def _notes(shown: Sequence[Matrices], others: int, labels: dict[str, str]) -> list[str]:
    notes = ["T[i, j]: the share of class i that is labelled j; means over seeds."]
    errors = []
    for one in shown:
        if one.errors:
            low, high = min(one.errors), max(one.errors)
            span = f"{low:.3f}" if low == high else f"{low:.3f} to {high:.3f}"
            errors.append(f"{labels[one.row]} {span}")
    if errors:
        notes.append("Differences without their sign.")
        notes.append(f"Their mean in a run, as a fraction: {', '.join(errors)}.")

    told = [labels[one.row] for one in shown if one.told]
    if told:
        notes.append(f"Given to the method, and no estimate: {', '.join(told)}.")
    unknown = [labels[one.row] for one in shown if one.true is None]
    if unknown:
        notes.append(
            f"{', '.join(unknown)}: predictions.npz has no true T. The true labels are unknown, or "
            "the run is an older one, which `--stale rerun` trains again."
        )
    if others:
        rows = "1 more row has" if others == 1 else f"{others} more rows have"
        notes.append(f"{rows} a T; --only chooses.")
    return [" ".join(notes)]


def _in_words(shown: Sequence[Matrices], labels: dict[str, str], title: str) -> str:
    """Describe the figure for those who cannot see it."""
    parts = []
    for one in shown:
        diagonal = one.estimated.diagonal()
        words = f"{labels[one.row]}: diagonal from {diagonal.min():.2f} to {diagonal.max():.2f}"
        if one.true is not None:
            true = one.true.diagonal()
            words += (
                f", of the true matrix from {true.min():.2f} to {true.max():.2f}, largest "
                f"difference of an entry {_error(one).max():.2f}"
            )
        parts.append(words)
    return f"Estimated transition matrices, {title}. {'. '.join(parts)}."
