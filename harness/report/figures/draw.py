"""Draw: a figure as SVG and PNG, the same bytes for the same data."""

from __future__ import annotations

import html
import io
import re

from harness.report.figures.canvas import (
    FAINT,
    GRID,
    INK,
    NARROW,
    PAPER,
    SEPARATOR,
    SHADE,
    TAG,
    WIDTH,
    Drawing,
)

DARK = {INK: "#e6edf3", FAINT: "#9aa4ae", GRID: "#3a424b", SHADE: "#2a323b", PAPER: "#0d1117"}
VARIABLES = {INK: "--ink", FAINT: "--faint", GRID: "--grid", SHADE: "--shade", PAPER: "--paper"}
PNG_DPI = 144
FONTS = (
    "'DejaVu Sans', 'Bitstream Vera Sans', 'Computer Modern Sans Serif', 'Lucida Grande', "
    "'Verdana', 'Geneva', 'Lucid', 'Arial', 'Helvetica', 'Avant Garde', sans-serif"
)
FONT = "'DejaVu Sans', Verdana, sans-serif"
SETTINGS = {
    "svg.hashsalt": "finetune-harness",
    "svg.fonttype": "none",
    "figure.figsize": (WIDTH, 4.0),
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.color": INK,
    "text.parse_math": False,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "lines.linewidth": 1.6,
}


TAGGED = re.compile(f'<g id="{TAG}{SEPARATOR}([^{SEPARATOR}"]*){SEPARATOR}([^"]*)">')


def draw(drawing: Drawing, description: str) -> tuple[bytes, bytes]:
    """Draw a figure; returns its SVG and its PNG (at 144 dots per inch)."""
    return _paint(drawing, description, WIDTH)


def draw_vector(drawing: Drawing, description: str) -> bytes:
    """The figure as SVG alone."""
    return _paint(drawing, description, WIDTH, raster=False)[0]


def draw_narrow(drawing: Drawing, description: str) -> bytes:
    """The same figure as SVG for a phone: half as wide, its letters as large."""
    return _paint(drawing, description, NARROW, raster=False)[0]


def _paint(
    drawing: Drawing, description: str, width: float, *, raster: bool = True
) -> tuple[bytes, bytes]:
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(width, 4.0))
        FigureCanvasAgg(figure)
        drawing.paint(figure)
        vector, picture = io.BytesIO(), io.BytesIO()
        figure.savefig(vector, format="svg", metadata={"Date": None, "Creator": None})
        if raster:
            figure.savefig(picture, format="png", dpi=PNG_DPI, metadata={"Software": None})
    return _describe(vector.getvalue(), description), picture.getvalue()


def _describe(svg: bytes, description: str) -> bytes:
    """Name the picture for screen readers; drop what matplotlib adds about itself."""
    text = svg.decode()
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"^.*?<svg", "<svg", text, count=1, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"\n\s+(?=\n)|[ \t]+$", "", text, flags=re.MULTILINE)
    text = text.replace(FONTS, FONT)
    text = TAGGED.sub(r'<g class="v" data-v="\1"><title>\2</title>', text)
    opened, _, rest = text.partition(">")
    title = f"<title>{html.escape(description)}</title>"
    return f'{opened} role="img">\n{title}{rest}'.encode()


def darken(svg: bytes) -> bytes:
    """The same picture for a dark page."""
    text = svg.decode()
    for light, dark in DARK.items():
        text = text.replace(light, dark)
    return text.encode()


def inline(svg: bytes, name: str) -> str:
    """The same picture inside a page that sets ink and paper; ids are made unique by ``name``."""
    text = svg.decode()
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    text = re.sub(r'\b(id="|xlink:href="#|url\(#)', rf"\g<1>{name}-", text)
    return text.replace("xlink:href", "href")
