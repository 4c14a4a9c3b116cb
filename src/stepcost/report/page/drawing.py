"""What every plot shares: its two sizes, fonts, hovers, and safe SVG and PNG.

Text from saved runs is never parsed as mathematics, and matplotlib escapes what it writes into SVG.
"""

from __future__ import annotations

import io
import re
import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure

from stepcost.report.load import Run
from stepcost.report.page.palette import INK, PAPER, RULE, SHADES, SOFT
from stepcost.report.rows import Row, source_of
from stepcost.units import listed

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

STYLE: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": SOFT,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.labelcolor": SOFT,
    "axes.labelsize": 12,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "figure.constrained_layout.h_pad": 4 / 72,
    "figure.constrained_layout.w_pad": 2 / 72,
    "figure.dpi": 72,
    "figure.facecolor": "none",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 12,
    "grid.color": RULE,
    "legend.fontsize": 12,
    "legend.frameon": False,
    "lines.linewidth": 2,
    "lines.markersize": 7,
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
}
CAPTION_COLUMNS = 110
"""Letters of the caption that fit in one line below a PNG."""
FONT = "system-ui, sans-serif"


class Size(NamedTuple):
    """For how wide a screen a plot is drawn, in pixels."""

    name: str
    width: int

    @property
    def is_narrow(self) -> bool:
        """Whether names of lines stand below and panels one under the other."""
        return self is NARROW


WIDE, NARROW = Size("wide", 720), Size("narrow", 358)


@dataclass(frozen=True)
class Plot:
    """One plot, drawn when it is asked for."""

    name: str
    """Stem of its PNG, such as ``memory-by-optimizer``."""
    title: str
    description: str
    """The plot in words, for who cannot see it."""
    caption: str
    """Source, configuration, and what its marks are."""
    where: str
    """Machine and runs: what a reader needs who sees only the plot."""
    draw: Callable[[Size], Figure]

    @cached_property
    def figure(self) -> Figure:
        """The wide drawing."""
        return self.at(WIDE)

    def at(self, size: Size) -> Figure:
        """Draw it for a screen."""
        with style(self.name):
            return self.draw(size)


@contextmanager
def style(name: str = "stepcost") -> Iterator[None]:
    """Set the look of all plots; ids inside the SVG are the same on every run."""
    settings: Any = {**STYLE, "svg.hashsalt": name}
    with mpl.rc_context(settings), warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes; that is not worth a warning.
        warnings.filterwarnings("ignore", message="Glyph")
        yield


def new_figure(size: Size, height: int, panels: int = 1) -> tuple[Figure, list[Axes]]:
    """Make a figure with ``panels``, each ``height`` pixels high: side by side where there is room."""
    down, across = (panels, 1) if size.is_narrow else (1, panels)
    figure = Figure(figsize=(size.width / 72, height * down / 72), layout="constrained")
    return figure, list(figure.subplots(down, across, squeeze=False).flat)


def where_of(run: Run, *others: Run) -> str:
    """Name the machine, torch and the runs; ``others`` are on the same GPU."""
    runs = [run, *others]
    where = run.gpu if run.machine.get("gpu") else "no GPU"
    cpu = (run.machine.get("cpu") or {}).get("brand_raw")
    if not run.machine.get("gpu") and cpu:
        where += f" ({cpu})"
    versions = listed(list(dict.fromkeys(one.torch for one in runs)))
    named = "; ".join(f"{one.label}, {one.date or 'no date'}" for one in runs)
    return f"{where}. torch {versions}. {named}."


def caption(rows: Sequence[Row], *said: str) -> str:
    """Join the source of the rows and what is said of the plot, as sentences."""
    return f"{'. '.join(filter(None, (source_of(rows).capitalize(), *said)))}."


def hover(artist: Artist, text: str) -> None:
    """Let the exact value be told where the pointer rests on the artist."""
    artist.set_gid(f"hover{text.encode('utf-8', 'replace').hex()}")


def to_svg(plot: Plot) -> str:
    """Draw both sizes as ``<svg>`` elements in the page's colours; its style shows the one that fits."""
    return "\n".join(_svg(plot, size) for size in (WIDE, NARROW))


def _svg(plot: Plot, size: Size) -> str:
    out = io.StringIO()
    with style(plot.name):
        figure = plot.figure if size is WIDE else plot.at(size)
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None}, facecolor="none")
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r' (d|x|y|transform)="([^"]*)"', _shorter, text)
    text = re.sub(r"(font: (?:\w+ )*[\d.]+px) [^;\"]*", rf"\1 {FONT}", text)
    for name, shade in SHADES.items():
        text = text.replace(shade.light, f"var(--{name})")
    # Groups need no names; clip paths and markers of several figures share one page.
    text = re.sub(r'<g id="(?!hover)[^"]*"', "<g", text)
    text = re.sub(r'\bid="(?!hover)', f'id="{plot.name}-{size.name}-', text)
    text = text.replace('href="#', f'href="#{plot.name}-{size.name}-')
    text = text.replace("url(#", f"url(#{plot.name}-{size.name}-")
    text = re.sub(r'<g id="hover([0-9a-f]*)">', _title, text)
    text = re.sub(r">\s+<", ">\n<", text)
    return text.replace("<svg ", f'<svg class="{size.name}" aria-hidden="true" focusable="false" ', 1)


def _shorter(found: re.Match[str]) -> str:
    numbers = re.sub(r"-?\d+\.\d+", lambda number: f"{float(number[0]):.2f}", found[2])
    return f' {found[1]}="{" ".join(numbers.split())}"'


def _title(found: re.Match[str]) -> str:
    return f"<g><title>{escape(bytes.fromhex(found[1]).decode())}</title>"


def to_png(plot: Plot, path: Path) -> None:
    """Write the wide drawing on white, under its title, caption and machine."""
    figure = plot.at(WIDE)
    lines = textwrap.wrap(f"{plot.caption} {plot.where}", CAPTION_COLUMNS, max_lines=6, placeholder=" ...")
    with style(plot.name):
        # Above the drawing, which its layout has filled: a tight box takes it in, and a key stays below.
        pixel = 1 / (72 * figure.get_figheight())
        above = 1 + (20 + 12 * len(lines)) * pixel
        figure.text(0, above, plot.title, va="bottom", fontsize=15, fontweight="bold")
        figure.text(0, above - 4 * pixel, "\n".join(lines), va="top", fontsize=10, color=SOFT)
        figure.savefig(
            path,
            format="png",
            dpi=144,
            facecolor=PAPER,
            bbox_inches="tight",
            metadata={"Software": None},
        )
