"""Draw the image of the front page: `python docs/make_journey.py`."""

from __future__ import annotations

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

BLUE, ORANGE, INK, MUTED = "#0072B2", "#D55E00", "#24292f", "#57606a"
STEPS = [
    ("file", "JPEG, PNG,\nCOCO, CSV"),
    ("reader", "uint8 image\nand what is known"),
    ("transform", "f(seed, epoch,\nindex)"),
    ("batch", "flip, mixup\non the device"),
    ("normalize", "the weights'\nmean and std"),
]
TAIL = [
    ("task", "levels to loss\nand metric"),
    ("run", "result.json,\nmetrics.csv"),
    ("compare", "report.html"),
]


def box(axes, x: float, y: float, title: str, text: str, color: str) -> None:
    patch = FancyBboxPatch((x, y), 1.32, 0.9, boxstyle="round,pad=0.02,rounding_size=0.1", facecolor="white",
                           edgecolor=color, linewidth=1.6)  # fmt: skip
    axes.add_patch(patch)
    axes.text(x + 0.66, y + 0.66, title, ha="center", va="center", fontsize=10, fontweight="bold", color=INK)
    axes.text(x + 0.66, y + 0.28, text, ha="center", va="center", fontsize=7.6, color=MUTED)


def arrow(axes, start: tuple[float, float], end: tuple[float, float], color: str = MUTED) -> None:
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": color, "linewidth": 1.3})


def main() -> None:
    figure = Figure(figsize=(11, 5.0), dpi=120, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_xlim(-0.1, 8.3)
    axes.set_ylim(-0.15, 4.0)
    axes.axis("off")
    for column, (title, text) in enumerate(STEPS):
        box(axes, column * 1.7, 3.0, title, text, MUTED)
        if column:
            arrow(axes, (column * 1.7 - 0.36, 3.45), (column * 1.7 - 0.03, 3.45))
    arms = (
        ("pretrained", 0.9, BLUE, "backbone with\nits weights"),
        ("scratch", 4.3, ORANGE, "the same backbone,\nrandom"),
    )
    for name, x, color, text in arms:
        box(axes, x + 0.6, 1.5, name, text, color)
        arrow(axes, (7.46, 2.97), (x + 1.26, 2.44), color)
    axes.text(
        4.16, 1.94, "same order, draws,\nnorms, schedule", ha="center", va="center", fontsize=8.5, color=INK
    )
    for column, (title, text) in enumerate(TAIL):
        box(axes, 1.6 + column * 1.9, 0.0, title, text, MUTED)
        if column:
            arrow(axes, (1.6 + column * 1.9 - 0.56, 0.45), (1.6 + column * 1.9 - 0.03, 0.45))
    for _, x, color, _text in arms:
        arrow(axes, (x + 1.26, 1.47), (2.26, 0.94), color)
    target = Path(__file__).parent / "_static" / "journey.png"
    figure.savefig(target, metadata={"Software": None})


if __name__ == "__main__":
    main()
