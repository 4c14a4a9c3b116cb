"""Plot of question 4: the step of each engine, beside what bounds it."""

from __future__ import annotations

from reports.answers_engines import engine_steps, step_s
from reports.drawing import BACKING, Plot, finish, new_figure, plain_numbers, style
from reports.load import Run
from reports.palette import BLUE, INK, ORANGE, SKY
from reports.plots_memory import caption
from reports.rows import configuration
from reports.units import count, significant

BAR = 0.8


def step_by_engine(run: Run) -> Plot | str:
    """Milliseconds a step by engine, a group of bars per batch size; or why there is none."""
    steps = engine_steps(list(run.rows))
    if not steps:
        return "No steps of several engines were timed (--engines)."
    title = "Time of a training step by engine, and what bounds it"
    names = list(dict.fromkeys(engine for _, engine in steps))
    batches = list(dict.fromkeys(batch for batch, _ in steps))
    with style():
        figure, panels = new_figure(len(batches))
        for axes, batch in zip(panels, batches, strict=True):
            rows = [(names.index(name), row) for (size, name), row in steps.items() if size == batch]
            places = [place for place, _ in rows]
            values = [step_s(row) * 1000 for _, row in rows]
            axes.barh(places, values, height=BAR, color=SKY, label="step")
            for field, color, label in (
                ("kernel_s", BLUE, "sum of its kernels"),
                ("least_s", ORANGE, "bytes and operations at the card's rates"),
            ):
                marks = [(place, row[field] * 1000) for place, row in rows if row.get(field)]
                axes.vlines(
                    [value for _, value in marks],
                    [place - BAR / 2 for place, _ in marks],
                    [place + BAR / 2 for place, _ in marks],
                    color=color,
                    linewidth=2,
                    label=label,
                )
            for place, value in zip(places, values, strict=True):
                axes.annotate(
                    significant(value), (value, place), xytext=(3, 0), textcoords="offset points",
                    va="center", fontsize=7.5, bbox=BACKING,
                )  # fmt: skip
            axes.set_title(f"batch {count(batch)}", fontsize=9.5)
            axes.set_xlabel("ms a step")
            axes.set_ylim(len(names) - 0.4, -0.6)
            axes.set_xlim(0, max(values) * 1.28)
            axes.set_yticks(range(len(names)), names if axes is panels[0] else [""] * len(names))
            axes.grid(visible=False, axis="y")
            axes.grid(visible=True, axis="x")
            axes.tick_params(colors=INK)
            plain_numbers(axes.xaxis)
        some = list(steps.values())
        said = configuration(some[0], "batch_size", "engine", "precision")
        how = "Bar: the step. Blue: sum of its kernels. Orange: its bytes or operations at the card's rates"
        finish(figure, title, caption(run, some, said, how))
    words = "; ".join(
        f"batch {count(batch)} {engine}: {significant(step_s(row) * 1000)} ms"
        for (batch, engine), row in steps.items()
    )
    return Plot("step-by-engine", title, f"Bars. {words}.", figure)
