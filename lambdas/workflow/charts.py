"""The pictures of a report, as SVG that lives inside its page: no script, no style of its own, no address.

Colours, fonts, light and dark come from the page, which knows a series by its class.
"""

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

SUBJECTS: Final = ("base", "candidate")
# Two numbers nearer than this are the same number.
SAME: Final = 1e-9
# So many exploits are drawn, the best ones.
_SHOWN_EXPLOITS: Final = 10
# Of a chart that is a file of its own; in a page they come from its style.
_STYLE: Final = (
    ":root{--page:#fff;--soft:#566371;--rule:#dbe1e7;--good:#2f82c4;--bad:#dd8a4a}"
    "@media(prefers-color-scheme:dark){"
    ":root{--page:#10161c;--soft:#9caab8;--rule:#2c3743;--good:#4a9be0;--bad:#d9853f}}"
    ".chart{background:var(--page);font:13px system-ui,sans-serif}.chart text{fill:var(--soft);stroke:none}"
    ".chart .axis.x text,.chart .titles text{text-anchor:middle}.chart .axis.y text{text-anchor:end}"
    ".chart .axis path{stroke:var(--rule);fill:none}"
    ".chart .axis path.limit{stroke:var(--bad);stroke-dasharray:4 3}"
    ".better rect{fill:var(--good)}.worse rect{fill:var(--bad)}"
    ".same rect{fill:var(--soft);opacity:.55}"
)
# What pygal adds to the picture: its scripts and styles (in `defs`), and the texts that those show.
_UNWANTED: Final = frozenset({"defs", "desc", "title"})
# Control characters, marks that hide or reorder text, halves of characters. The joiners U+200C and U+200D are
# not among them: some scripts are written with them.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)


def interval(manifest: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns where the picture of the decision puts things, in percent of its width; None without one.

    The interval of the gain is drawn around the candidate, counted from the base's mean: where all of it lies
    right of the bar, the candidate is better than was asked.
    """
    if manifest["decision"] is None:
        return None
    names = ("base_mean", "candidate_mean", "lower", "upper", "minimum_gain")
    base, candidate, lower, upper, asked = (float(manifest["decision"][name]) for name in names)
    marks = {
        "base": base,
        "candidate": candidate,
        "low": base + lower,
        "high": base + upper,
        "bar": base + asked,
    }
    low, high = min(marks.values()), max(marks.values())
    margin = max(high - low, 0.02) * 0.18
    low, high = low - margin, high + margin
    place = {name: round(100 * (value - low) / (high - low), 2) for name, value in marks.items()}
    ticks = [(round(100 * (tick - low) / (high - low), 2), _tick(tick)) for tick in _ticks(low, high)]
    return {**place, "ticks": ticks}


def draw(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields the (name, SVG) of every chart the manifest has data for."""
    drawn, training = manifest["distributions"], manifest["training"]
    if drawn["differences"]:
        yield "differences", _differences_chart(drawn["differences"])
    if drawn["scores"]:
        yield "scores", _distribution_chart(drawn["scores"], "score of a completion")
    if drawn["output_tokens"]:
        yield "output_tokens", _distribution_chart(drawn["output_tokens"], "tokens of a completion")
    for role in ("reward", "entropy", "length"):
        if training and training["roles"][role]:
            yield role, _curve(training, role)


# A bar: its height, where it begins and ends, and what it says to a pointer resting on it.
Bar = tuple[float, float, float, str]


def _distribution_chart(drawn: Mapping[str, Any], label: str) -> str:
    """Draws the shares of both subjects' completions: half of each bin's width each, the base on the left."""
    edges = drawn["edges"]
    width = edges[1] - edges[0]
    series: dict[str, list[Bar]] = {}
    for subject, left in zip(SUBJECTS, (0.08, 0.5), strict=True):
        total = sum(drawn[subject])
        if total:
            series[subject] = [
                (
                    count / total,
                    edges[at] + width * left,
                    edges[at] + width * (left + 0.42),
                    f"{subject}, {_tick(edges[at])} to {_tick(edges[at + 1])}: {count / total:.0%}",
                )
                for at, count in enumerate(drawn[subject])
            ]
    return _bars(series, label, [(tick, _tick(tick)) for tick in _ticks(edges[0], edges[-1])], percent=True)


def _differences_chart(drawn: Mapping[str, Any]) -> str:
    """Draws how many prompts lost and gained how much; those that did neither have a bar of their own."""
    edges = drawn["edges"]
    half = (edges[1] - edges[0]) / 2

    def bars(name: str, sign: int) -> list[Bar]:
        placed = []
        for at, count in enumerate(drawn[name]):
            begin, end = sorted((sign * (edges[at] + half), sign * (edges[at + 1] + half)))
            words = f"{count} prompts {_tick(edges[at])} to {_tick(edges[at + 1])} {name}"
            placed.append((float(count), begin, end, words))
        return placed

    same = drawn["same"]
    series = {
        "worse": bars("worse", -1),
        "same": [(float(same), -half, half, f"{same} prompts the same")],
        "better": bars("better", 1),
    }
    top = edges[-1]
    marks = [(sign * (at + half), decimals(sign * at, "+g")) for sign in (-1, 1) for at in (top / 2, top)]
    return _bars(series, "candidate minus base, per prompt", sorted([*marks, (0.0, "0")]))


def _bars(
    series: Mapping[str, Sequence[Bar]],
    label: str,
    marks: Sequence[tuple[float, str]],
    *,
    percent: bool = False,
) -> str:
    """Draws bars; the page's style tells the series apart by their names."""
    import pygal

    highest = max(bar[0] for bars in series.values() for bar in bars)
    chart = pygal.Histogram(
        **_look(),
        x_title=label,
        value_formatter=(lambda value: f"{value:.0%}") if percent else (lambda value: f"{value:g}"),
        y_labels=_ticks(0.0, highest, whole=not percent),
        range=(0, highest),
        x_labels=[{"value": at, "label": words} for at, words in marks],
    )
    words = {}
    for name, bars in series.items():
        shown = [bar for bar in bars if bar[0] > 0]
        words[name] = [bar[3] for bar in shown]
        chart.add(name, [bar[:3] for bar in shown])
    said = "; ".join(bar for name in words for bar in words[name])
    return _svg(chart, list(series), f"Bars: {label}. {said}.", words)


def _curve(training: Mapping[str, Any], role: str) -> str:
    """Draws a training metric over its steps, with the band from lowest to highest where that is known."""
    import pygal

    series, roles = training["series"], training["roles"]

    def points(name: str) -> list[tuple[float, float]]:
        column = series.get(roles.get(name) or "", ())
        steps = series["step_number"][: len(column)]
        return [(step, value) for step, value in zip(steps, column, strict=True) if value is not None]

    lines = {role: points(role)}
    lowest, highest = points(f"{role}_lowest"), points(f"{role}_highest")
    if lowest and highest:
        lines = {"band": [*highest, *reversed(lowest), highest[0]], **lines}
    if role == "reward" and (validation := points("validation")):
        lines["validation"] = validation
    values = [value for line in lines.values() for _, value in line]
    steps = [step for line in lines.values() for step, _ in line]
    ticks = _ticks(min(0.0, *values), max(values))
    chart = pygal.XY(
        **_look(),
        x_title="training step",
        value_formatter=_tick,
        y_labels=ticks,
        range=(min(0.0, *values), max(values)),
        x_labels=[{"value": at, "label": _tick(at)} for at in _ticks(min(steps), max(steps), whole=True)],
    )
    for name, line in lines.items():
        chart.add(name, line, show_dots=name == "validation" or len(line) == 1, dots_size=3)
    (first, from_value), (last, to_value) = lines[role][0], lines[role][-1]
    said = f"{_tick(from_value)} at step {first:g}, {_tick(to_value)} at step {last:g}"
    return _svg(chart, list(lines), f"Line: {roles[role]} over training steps, {said}.", {})


def rehearsal(facts: Mapping[str, Any]) -> str:
    """Draws the facts of a rehearsal: what references earn and the best exploits gain, beside the limit.

    Of a rehearsal that ended before any exploit was tried there is nothing to draw, and "" is returned.
    """
    import pygal

    exploits = facts.get("exploits", [])
    if not exploits:
        return ""
    limit = facts["max_hackability"]
    gained = [each for each in exploits if each["gain"] > 0][:_SHOWN_EXPLOITS]
    bars = [("references", "better", facts["references"]["share_at_maximum"])]
    for each in gained:
        name = "worse" if each["gain"] >= limit else "same"
        bars.append((each["rule"].replace("-", " "), name, each["gain"]))
    if others := exploits[len(gained) :]:
        bars.append((f"{len(others)} {'others' if gained else 'exploits'}", "same", others[0]["gain"]))
    marks = {0.0: "0%", 1.0: "100%", limit: f"limit {limit:.0%}"}
    # Drawn from the bottom up.
    bars.reverse()
    chart = pygal.HorizontalStackedBar(
        **{**_look(), "height": 60 + 19 * len(bars), "width": 440, "margin_right": 24},
        x_title="share of the reward's range",
        value_formatter=lambda value: f"{value:.0%}",
        y_labels=[{"value": at, "label": words} for at, words in sorted(marks.items())],
        range=(0, 1),
        x_labels=[label for label, _, _ in bars],
    )
    words: dict[str, list[str]] = {}
    for name in ("better", "worse", "same"):
        chart.add(name, [gain if named == name else None for _, named, gain in bars])
        words[name] = [f"{label}: {gain:.0%}" for label, named, gain in bars if named == name]
    said = "; ".join(f"{label} {gain:.0%}" for label, _, gain in reversed(bars))
    drawn = _svg(
        chart,
        ["better", "worse", "same"],
        f"Bars: what references and exploits earn, with the limit at {limit:.0%}. {said}.",
        words,
    )
    return re.sub(r'class="[^"]*"( /><text [^>]*>limit )', r'class="limit"\1', drawn)


def alone(svg: str) -> str:
    """Returns a chart as a file of its own, with the colours that a page would give it."""
    return svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1).replace(
        ">", f"><style>{_STYLE}</style>", 1
    )


def _look() -> dict[str, Any]:
    """Returns the settings all charts share; the font sizes are those of the page, for labels to fit."""
    from pygal.style import Style

    return {
        "width": 400,
        "height": 245,
        "margin": 4,
        "margin_right": 12,
        "spacing": 8,
        "show_legend": False,
        "style": Style(label_font_size=13, major_label_font_size=13, title_font_size=13),
        "js": (),
        "css": (),
        "no_prefix": True,
        "truncate_label": -1,
    }


def _svg(chart: Any, names: Sequence[str], said: str, words: Mapping[str, Sequence[str]]) -> str:
    """Renders a pygal chart without all the page has or forbids, with its series named by their class.

    `said` is the chart in words; `words` are what the bars of a series say to a pointer resting on them.
    """
    from pygal.etree import etree

    root = chart.render_tree()
    for parent in list(root.iter()):
        for child in list(parent):
            name, classes = child.tag, child.get("class", "").split()
            unwanted = not isinstance(name, str) or name in _UNWANTED or "tooltip" in classes
            if unwanted or classes == ["background"]:
                parent.remove(child)
    for node in root.iter():
        classes = node.get("class", "").split()
        for at, name in enumerate(names):
            if f"serie-{at}" in classes:
                node.set("class", f"series {name}")
                for bar, words_of_it in zip(node.iter("rect"), words.get(name, ()), strict=False):
                    etree.SubElement(bar, "title").text = words_of_it
        for key in ("d", "x", "y", "cx", "cy", "width", "height"):
            if key in node.attrib:
                node.set(key, re.sub(r"-?\d+\.\d+", lambda found: f"{float(found[0]):.1f}", node.get(key)))
    for key in ("id", "xmlns"):
        root.attrib.pop(key, None)
    root.set("class", "chart")
    root.set("role", "img")
    root.set("aria-label", visible(said))
    drawn: str = etree.tostring(root, encoding="unicode")
    return drawn


def _ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Returns a few round numbers within `low`..`high`."""
    if high <= low:
        return [low]
    step = round_up((high - low) / 6)
    if whole:
        step = max(1.0, math.ceil(step))
    first = math.ceil(low / step - SAME)
    ticks = itertools.takewhile(
        lambda tick: tick <= high + SAME * step, (at * step for at in itertools.count(first))
    )
    return [round(tick, 10) for tick in ticks]


def round_up(value: float) -> float:
    """Returns the next number of the form 1, 2, 2.5 or 5 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(
        round(times * power, 12) for times in (1, 2, 2.5, 5, 10) if times * power >= value * (1 - SAME)
    )


def _tick(value: float) -> str:
    return decimals(value, ".3g") if abs(value) < 1000 else decimals(value, ",.0f")


def decimals(value: float, form: str) -> str:
    """Formats a number with a real minus sign and without a negative zero."""
    shown = format(value, form)
    zero = not shown.strip("+-0.,%")
    return shown.lstrip("+-") if zero else shown.replace("-", "\u2212")


def visible(text: str) -> str:
    """Returns `text` with the characters that hide, reorder or break text shown as symbols."""

    def symbol(found: re.Match[str]) -> str:
        code = ord(found[0])
        return chr(0x2400 + code) if code < 0x20 else f"\u27e8U+{code:04X}\u27e9"

    return _HIDDEN.sub(symbol, text.replace("\r\n", "\n"))
