"""Owns the page: what a study says in words, its charts, and the style sheet. One file, without scripts."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from crossbar.devices.profile import DeviceProfile
from crossbar.planning.plan import Plan
from crossbar.reporting.axes import Axis, age_axis, error_axis, linear_axis, stepped_axis
from crossbar.reporting.charts import Bar, Series, bar_chart, distribution_chart, line_chart
from crossbar.reporting.study import ADC_BITS, AGES, SAMPLE, Study, Sweep
from crossbar.reporting.style import STYLE

_MICRO = 1e-6
_COLOURS = {"static": "orange", "with levers": "blue"}


def page(study: Study, title: str) -> str:
    """Return a whole HTML document; `title` names the matrix."""
    heading = f"{title} on {study.profile.name}"
    cards = [
        _card("Tiles and faults", _tile_caption(study), study.tile_map.drawn()),
        _card("Error by lever", *_ladder(study)),
        _card("Error by cause", *_causes(study)),
        _card("Error against array size", *_tile_sizes(study)),
        _card("Error against ADC bits", *_adc_bits(study)),
        _card("Error against age", *_ages(study)),
        _card("Conductances", *_conductances(study)),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(heading)}</title><style>{STYLE}</style></head><body><main>"
        f"<header><h1>{escape(heading)}</h1><p>{escape(_verdict(study))}</p></header>"
        f"{_figures(study)}{_facts(study)}"
        f'<div class="cards">{"".join(cards)}</div>'
        f"<footer>{escape(_footnote(study))}</footer></main></body></html>\n"
    )


def _verdict(study: Study) -> str:
    outputs, inputs = study.shape
    before, after = study.static_measured.value, study.measured.value
    size = f"{outputs} × {inputs} weights"
    change = f"levers take the error of {size} from {before:.2%} to {after:.2%}"
    if len(study.steps) == 1:
        change = f"{size} are wrong by {after:.2%} without any lever"
    target = f"the target of {study.target_error:.3g}"
    if study.is_met:
        return f"On simulated arrays {change}, which meets {target}."
    return f"On simulated arrays {change}. That misses {target}: only digital arithmetic meets it."


def _figures(study: Study) -> str:
    counts, static = study.counts, study.static_counts
    more = counts.cells_allocated / max(static.cells_allocated, 1)
    figures = [
        (
            "measured error",
            f"{study.measured.value:.2%}",
            f"± {study.measured.standard_error:.2%}, whole matrix",
        ),
        ("predicted error", f"{study.budget.total:.2%}", "before programming"),
        (
            "without levers",
            f"{study.static_measured.value:.2%}",
            f"predicted {study.static_budget.total:.2%}",
        ),
        ("cells", _thousands(counts.cells_allocated), f"{more:.2f} × static, {counts.utilisation:.0%} used"),
        ("arrays", _thousands(counts.arrays), f"{study.plan.rows} × {study.plan.columns}"),
        ("pulses", _thousands(counts.programming_pulses), "to program once"),
        ("ADC conversions", _thousands(counts.adc_conversions), "for each vector"),
    ]
    tiles = "".join(
        f"<div><dt>{name}</dt><dd>{value}</dd><dd class=note>{note}</dd></div>"
        for name, value, note in figures
    )
    return f'<dl class="figures">{tiles}</dl>'


def _facts(study: Study) -> str:
    profile = study.profile
    bits = [
        f"{'no' if b is None else b} {'' if b is None else 'bit '}"
        for b in (profile.dac_bits, profile.adc_bits)
    ]
    rows = [
        ("profile", profile.description or profile.name),
        ("window", _window(profile)),
        ("modelled", ", ".join(_modelled(profile)) or "nothing"),
        ("converters", f"{bits[0]}DAC, {bits[1]}ADC, range: {study.plan.adc_range}"),
        ("source", profile.source or "not stated"),
        ("plan", ", ".join(_levers(study.plan)) or "no levers"),
    ]  # fmt: skip
    body = "".join(f"<tr><th>{name}</th><td>{escape(value)}</td></tr>" for name, value in rows)
    return f"<table class=facts>{body}</table>"


def _window(profile: DeviceProfile) -> str:
    least, most = profile.conductance_min_siemens / _MICRO, profile.conductance_max_siemens / _MICRO
    levels = f"{profile.levels} levels" if profile.levels else "any level"
    return f"{least:g} to {most:g} µS, {levels}, read at {profile.read_volts:g} V"


def _modelled(profile: DeviceProfile) -> list[str]:
    named = {
        "programming noise": profile.programming_noise,
        "device variation": profile.device_variation,
        "read noise": profile.read_noise,
        "drift": profile.drift,
        "nonlinear I-V": profile.nonlinearity,
    }
    found = [name for name, law in named.items() if law]
    if profile.stuck_on_rate or profile.stuck_off_rate:
        found.append(f"stuck devices ({profile.stuck_on_rate:.2%} on, {profile.stuck_off_rate:.2%} off)")
    if profile.word_line_ohm or profile.bit_line_ohm:
        found.append(f"wires of {profile.word_line_ohm:g} and {profile.bit_line_ohm:g} ohm a cell")
    return found


def _levers(plan: Plan) -> list[str]:
    tolerance, tries = plan.write_verify_tolerance, plan.write_verify_tries
    wording = {
        "slices": f"{plan.slices} slices",
        "replicas": f"{plan.replicas} replicas",
        "scale": f"scale of each tile's {plan.scale}",
        "adc_range": f"ADC range: {plan.adc_range}",
        "assignment": f"assignment of {plan.assignment}".replace("_", " "),
        "write_verify_tolerance": f"write-verify to {tolerance:.1%} in {tries} tries",
        "spare_columns": f"{plan.spare_columns} spare columns",
        "residual_share": f"digital residual of {plan.residual_share:.1%}",
    }
    found = [name for name in plan.levers if name != "write_verify_tries"]
    return [wording.get(name, name.replace("_", " ")) for name in found]


def _tile_caption(study: Study) -> str:
    tiles = study.tile_map.grid
    shown = study.tile_map.errors.shape
    caption = f"{tiles.tile_rows} × {tiles.tile_columns} tiles of {study.plan.rows} × {study.plan.columns}."
    if shown != (tiles.tile_rows, tiles.tile_columns):
        caption += f" The first {shown[0]} × {shown[1]} are shown."
    if not study.tile_map.faults.any():
        return caption + " The profile has no stuck devices."
    caption += f" {study.tile_map.stuck_share:.1%} of places have a stuck device (first slice and copy)."
    if study.plan.assignment != "none":
        caption += (
            " Errors are in the matrix's order, devices where they are: assignment moved lines between them."
        )
    return caption


def _ladder(study: Study) -> tuple[str, str]:
    axis = linear_axis("", max(max(step.predicted, step.measured) for step in study.steps))
    bars = [
        Bar(step.name, step.measured, f"{step.measured:.2%}", f"cells × {step.cells:.2f}",
            "orange" if index == 0 else "blue", step.predicted)
        for index, step in enumerate(study.steps)
    ]  # fmt: skip
    caption = f"Each lever is added to those above it. Measured on {_sample(study)}."
    return caption, bar_chart(bars, axis, "measured error after each lever", mark="predicted")


def _causes(study: Study) -> tuple[str, str]:
    before, after = study.static_budget.terms, study.budget.terms
    bars = [
        Bar(name.replace("_", " ").replace("adc", "ADC").replace("dac", "DAC").replace("ir drop", "IR drop"),
            after[name], f"{after[name]:.2%}", f"static {before[name]:.2%}", "blue", before[name])
        for name in before
        if before[name] or after[name]
    ]  # fmt: skip
    axis = linear_axis("", max([*before.values(), *after.values(), 1e-9]))
    caption = "Predicted for the whole matrix; the squares add up."
    return caption, bar_chart(bars, axis, "predicted error by cause", mark="static partitioning")


def _tile_sizes(study: Study) -> tuple[str, str]:
    x = stepped_axis("word and bit lines of an array", [str(size) for size in study.tile_sizes])
    caption = "Long wires lose voltage; short ones need more arrays and conversions."
    return caption, _lines(x, study.by_tile_size, "error against array size")


def _adc_bits(study: Study) -> tuple[str, str]:
    x = stepped_axis("ADC bits", [str(bits) for bits in ADC_BITS])
    ranges = list(dict.fromkeys((study.static.adc_range, study.plan.adc_range)))
    caption = f"Range of the ADC: {ranges[0]}" + (
        f" without levers, {ranges[1]} with them." if ranges[1:] else "."
    )
    return caption, _lines(x, study.by_adc_bits, "error against ADC bits")


def _ages(study: Study) -> tuple[str, str]:
    if not study.by_age:
        return "The profile has no drift law: nothing is known of its devices' age.", ""
    x = age_axis("since programming, logarithmic but for 0 s", AGES)
    places = [place for place, _ in x.ticks]
    caption = "Measured. Dashed: without the digital factor that makes up for drift common to all devices."
    return caption, _lines(x, study.by_age, "error against age", places)


def _conductances(study: Study) -> tuple[str, str]:
    histogram = study.histogram
    edges = histogram.edges_siemens
    x = linear_axis("conductance, µS", float(edges[-1]), unit=_MICRO)
    shares = (("target", "orange", histogram.target), ("programmed", "blue", histogram.programmed))
    tall = float(histogram.programmed.max())
    y = linear_axis("share of cells, %", 1.15 * tall, unit=0.01)
    lost = float(histogram.target.max())
    caption = "Cells of one tile, before ageing."
    if lost > y.most:
        caption += f" The tallest bar of targets, {lost:.0%} of cells, is cut off."
    return caption, distribution_chart(edges, shares, x, y, "conductances, meant and programmed")


def _lines(x: Axis, sweep: Sweep, description: str, places: Sequence[float] | None = None) -> str:
    """Return a chart of a sweep whose values are at `places` of the axis: 0, 1, 2, ... if they are not given."""
    y = error_axis(value for values in sweep.values() for value in values)
    series = []
    for name, values in sweep.items():
        kind, _, variant = name.partition(", ")
        series.append(Series(name, tuple(zip(places or range(len(values)), values, strict=True)),
                             _COLOURS[kind], dashed=bool(variant)))  # fmt: skip
    return line_chart(x, y, series, description)


def _sample(study: Study) -> str:
    outputs, inputs = (min(sides) for sides in zip(study.shape, SAMPLE, strict=True))
    whole = (outputs, inputs) == study.shape
    return "the whole matrix" if whole else f"its first {outputs} outputs and {inputs} inputs"


def _footnote(study: Study) -> str:
    return (
        "Errors are relative L2 errors of products with standard normal vectors, at 0 s unless an age is given; "
        f"sweeps are measured on {_sample(study)}. Simulated devices, seed {study.seed}; another seed is another chip."
    )


def _card(title: str, caption: str, chart: str) -> str:
    return f"<section><h2>{escape(title)}</h2><p>{escape(caption)}</p>{chart}</section>"


def _thousands(count: int) -> str:
    return f"{count:,}".replace(",", " ")  # a narrow space, as in print
