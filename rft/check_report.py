"""What `rft check` shows: on a terminal, and as Markdown for the comment on a pull request.

Rows and completions are strangers' text. On a terminal whatever of it could steer is shown as an escape. In
Markdown it stands in code, where nothing is read as markup, or is escaped character by character: it can make
no link, no table, no element, and can call nobody.
"""

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lambdas.gate import Finding
from rft.check import Against, Check, Content, Cost, Gate
from rft.differences import FileDifference, Histogram, RewardDifference, RowChange, SettingChange
from rft.scoring import visible

_GLYPHS: Final = {
    "pass": ("✓", "bold green"),
    "info": ("·", "dim"),
    "warn": ("!", "bold yellow"),
    "stop": ("✗", "bold red"),
    "skipped": ("-", "dim"),
}
_SIGNS: Final = {"pass": "✅", "info": "🔹", "warn": "⚠️", "stop": "❌", "skipped": "⏭️"}
_STARTS: Final = {
    "manual": "somebody starts it",
    "on-deploy": "the next deploy starts it",
    "on-upload": "the next upload of rows starts it",
}
_MARKS: Final = {"added": "+", "removed": "-", "reference": "~", "prompt": "~", "metadata": "~"}

_FINDINGS = 12
_EXAMPLES = 3
_SETTINGS = 30
_LONGEST = 500
_BAR = 14
_BLOCKS = " ▏▎▍▌▋▊▉█"
_ESCAPED = re.compile(r"[\\`*_{}\[\]()#!|~]")
_BEGINNING = re.compile(r"^(\d*)([-+=.)])")


# --- in words, for both


def _counted(findings: Sequence[Finding], level: str, name: str) -> str:
    count = sum(finding.level == level for finding in findings)
    return f"{count} {name}{'' if count == 1 else 's'}" if count else ""


def _gate_words(gate: Gate) -> str:
    """Returns what a gate says in a line; its findings are told apart from it."""
    if gate.level == "skipped":
        return f"skipped: {gate.skipped}"
    found = [
        _counted(gate.findings, "stop", "fault"),
        _counted(gate.findings, "warn", "warning"),
        _counted(gate.findings, "info", "remark"),
    ]
    said = [gate.says, *found] if gate.level != "stop" else [*found, gate.says]
    return "; ".join(part for part in said if part) or "nothing to object to"


def _examples(finding: Finding) -> list[str]:
    """Returns a few examples of a finding that its sentence does not give already."""
    fresh = [
        each
        for each in finding.examples
        if each.partition(": ")[2] not in finding.sentence or ": " not in each
    ]
    return fresh[:_EXAMPLES]


def _content_words(team: str, content: Content) -> list[str]:
    rows = f"rows {content.dataset[:12]}" if content.dataset else "rows that are not read here"
    reward = f"reward {content.reward[:12]}"
    started = [f"{stage}: {_STARTS[when]}" for stage, when in content.starts.items()]
    return [
        f"A run is named by {rows}, {reward}, {content.settings['base_model']} and its settings; whether it"
        f" has run before, its account knows (rft run {team} finds it).",
        "; ".join(started),
    ]


def _file_words(file: FileDifference) -> str:
    sizes = [f"{count:,}" if count is not None else "none" for count in (file.before, file.after)]
    return f"{file.file}: {file.words}" + ("" if file.note else f" ({sizes[0]} → {sizes[1]} rows)")


def _row_words(change: RowChange) -> str:
    """Returns a changed row in a line of strangers' text."""
    name = change.id or f"line {change.line}"
    what = {
        "reference": f"{change.before} → {change.after}",
        "added": change.after,
        "removed": change.before,
    }.get(change.kind, f"{change.kind} changed")
    return f"{_MARKS[change.kind]} {name}: {_short(what, 60)}  ({_short(change.asked, 60)})"


def _reward_words(reward: RewardDifference) -> str:
    order = (
        "one gives the same to all" if reward.correlation is None else f"correlation {reward.correlation:.2f}"
    )
    if not reward.higher + reward.lower:
        return f"{reward.source}: all {reward.completions:,} completions earn what they earned"
    return (
        f"{reward.source}: {reward.completions:,} completions, {order}, {_percent(reward.flipped)} flip;"
        f" {reward.higher:,} earn more, {reward.lower:,} less"
    )


def _cost_words(costs: Sequence[Cost]) -> list[str]:
    """Returns what has become of the cost; nothing where it is the same or not known."""
    if len(costs) < 2 or costs[0] == costs[1]:
        return []
    tokens = " → ".join(" to ".join(_rounded(end) for end in each.tokens) for each in costs)
    priced = " → ".join(" to ".join(f"{end:,.2f}" for end in each.total) for each in costs)
    missing = f", without {', '.join(costs[1].unpriced)}, which have no price" if costs[1].unpriced else ""
    return [f"cost: {tokens} tokens of training; {priced} {costs[1].currency}{missing}"]


def _rounded(count: float) -> str:
    return f"{count / 1e6:.3g}M" if count >= 1e6 else f"{round(count):,}"


def _histogram_lines(histogram: Histogram) -> list[str]:
    most = max(*histogram.before, *histogram.after, 1)
    edges = histogram.edges
    names = [
        f"{low:,}" if high - low == 1 else f"{low:,} to {high - 1:,}"
        for low, high in itertools.pairwise(edges)
    ]
    wide = max(len(histogram.of), *map(len, names))
    lines = [f"{histogram.of:>{wide}}  {'before':<{_BAR + 8}}after"]
    for name, before, after in zip(names, histogram.before, histogram.after, strict=True):
        bars = [f"{_bar(count / most):<{_BAR}} {count:<6,}" for count in (before, after)]
        lines.append(f"{name:>{wide}}  {bars[0]} {bars[1]}".rstrip())
    return lines


def _answer_lines(file: FileDifference) -> list[str]:
    if not file.answers:
        return []
    lines = [f"{'before':>7} {'after':>7}  most frequent answers"]
    return lines + [
        f"{before:>7,} {after:>7,}  {_short(answer, 60)}" for answer, before, after in file.answers
    ]


def _bar(share: float) -> str:
    eighths = max(round(share * _BAR * 8), 1 if share > 0 else 0)
    return _BLOCKS[-1] * (eighths // 8) + _BLOCKS[eighths % 8].strip()


def _percent(share: float) -> str:
    rounded = round(share * 100)
    return "<1%" if rounded == 0 and share else ">99%" if rounded == 100 and share < 1 else f"{rounded}%"


def _value(value: Any) -> str:
    return "not set" if value is None else value if isinstance(value, str) else json.dumps(value)


def _short(text: str, length: int) -> str:
    line = " ".join(visible(text).split())
    return line if len(line) <= length else f"{line[: length - 1]}…"


# --- on a terminal


def terminal(check: Check) -> RenderableType:
    """Shows a check: a line per gate, then what was found, what has changed, and a sentence."""
    parts: list[RenderableType] = [
        Text.assemble((check.team, "bold"), ("  before the first paid call, offline", "dim")),
        Text(),
        _gates(check.gates),
    ]
    for gate in check.gates:
        if gate.findings:
            parts += [Text(), Text(gate.name, "bold"), _findings(gate.findings)]
    if check.against:
        parts += [Text(), *_against(check.against)]
    if check.content:
        parts += [Text(), *(Text(line, "dim") for line in _content_words(check.team, check.content))]
    glyph, style = _GLYPHS[check.verdict]
    parts += [Text(), Text.assemble((f"{glyph} ", style), (visible(check.sentence), "bold"))]
    return Group(*parts)


def _gates(gates: Sequence[Gate]) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for gate in gates:
        glyph, style = _GLYPHS[gate.level]
        words = Text(visible(_gate_words(gate)), "dim" if gate.level == "skipped" else "")
        grid.add_row(Text(glyph, style), gate.name, words)
    return grid


def _findings(findings: Sequence[Finding]) -> Table:
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for finding in findings[:_FINDINGS]:
        glyph, style = _GLYPHS[finding.level]
        told = Text(visible(finding.sentence[: 2 * _LONGEST]), "dim" if finding.level == "info" else "")
        for example in _examples(finding):
            told.append(f"\n  {_short(example, 160)}", "dim")
        grid.add_row(Text(f"  {glyph}", style), told)
    if (more := len(findings) - _FINDINGS) > 0:
        grid.add_row(Text("  …", "dim"), Text(f"and {more} more; --json has all of them", "dim"))
    return grid


def _against(against: Against) -> Iterator[RenderableType]:
    yield Text.assemble(
        ("since ", "bold"), (visible(against.revision), "bold"), (f"  {against.commit[:12]}", "dim")
    )
    yield Padding(Text(visible(against.run_sentence)), (0, 0, 0, 2))
    if against.settings:
        yield Padding(_settings(against.settings), (1, 0, 0, 2))
    for file in against.files:
        yield Padding(Text(_file_words(file)), (1, 0, 0, 2))
        lines = [_row_words(change) for change in file.examples]
        yield Padding(Text("\n".join(lines), "dim", no_wrap=True, overflow="ellipsis"), (0, 0, 0, 4))
        for block in (*map(_histogram_lines, file.histograms), _answer_lines(file)):
            if block:
                text = Text("\n".join(block), no_wrap=True, overflow="ellipsis")
                yield Padding(text, (1, 0, 0, 4))
    for reward in against.rewards:
        yield Padding(Text(_reward_words(reward)), (1, 0, 0, 2))
        lines = [
            f"{each.before:g} → {each.after:g}  row {each.row}: {_short(each.completion, 90)}"
            for each in reward.examples
        ]
        yield Padding(Text("\n".join(lines), "dim", no_wrap=True, overflow="ellipsis"), (0, 0, 0, 4))
    for words in _cost_words(against.costs):
        yield Padding(Text(visible(words)), (1, 0, 0, 2))
    for note in against.notes:
        yield Padding(Text(f"· {visible(note)}", "dim"), (0, 0, 0, 2))


def _settings(changes: Sequence[SettingChange]) -> Table:
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("setting", "before", "after", ""):
        table.add_column(name, overflow="fold")
    for change in changes[:_SETTINGS]:
        run = Text("another run", "yellow") if change.names_run else Text("")
        values = (_short(_value(each), 60) for each in (change.before, change.after))
        table.add_row(Text(visible(change.key)), *(Text(each) for each in values), run)
    return table


# --- as Markdown


def markdown(check: Check) -> str:
    """Writes a check for the comment on a pull request: a table of gates, then what can be unfolded."""
    lines = [
        f"### {_SIGNS[check.verdict]} {code(check.team)}",
        "",
        prose(check.sentence),
        "",
        "| | Gate | |",
        "|:-:|---|---|",
        *(f"| {_SIGNS[gate.level]} | {gate.name} | {prose(_gate_words(gate))} |" for gate in check.gates),
        "",
    ]
    if check.against:
        lines += [prose(check.against.run_sentence), ""]
    for gate in check.gates:
        if gate.findings:
            lines += _unfolded(
                f"{gate.name}: {_gate_words(gate)}",
                list(_finding_lines(gate.findings)),
                open_=gate.level == "stop",
            )
    if check.against:
        lines += _against_lines(check.against)
    if check.content:
        started = " ".join(_content_words(check.team, check.content))
        lines += [f"<sub>{prose(started)}</sub>", ""]
    return "\n".join(lines)


def _unfolded(summary: str, lines: Sequence[str], *, open_: bool = False) -> list[str]:
    # A summary is HTML, in which a backslash would be shown.
    told = _entities(_short(summary, 200))
    # The empty lines make GitHub read what is inside as Markdown.
    return [f"<details{' open' if open_ else ''}><summary>{told}</summary>", "", *lines, "", "</details>", ""]


def _finding_lines(findings: Sequence[Finding]) -> Iterator[str]:
    for finding in findings[:_FINDINGS]:
        yield f"- {_SIGNS[finding.level]} {prose(finding.sentence[: 2 * _LONGEST])}"
        if examples := _examples(finding):
            shown = [_short(example, _LONGEST) for example in examples]
            yield from (f"  {line}" for line in block("\n".join(shown)))
    if (more := len(findings) - _FINDINGS) > 0:
        yield f"- and {more} more"


def _against_lines(against: Against) -> Iterator[str]:
    if against.settings:
        lines = ["| Setting | Before | After | |", "|---|---|---|---|"]
        for change in against.settings[:_SETTINGS]:
            values = [code(_short(_value(each), 100)) for each in (change.before, change.after)]
            run = "another run" if change.names_run else ""
            lines.append(f"| {code(change.key)} | {values[0]} | {values[1]} | {run} |")
        yield from _unfolded(f"settings: {len(against.settings)} changed", lines)
    for file in against.files:
        parts = ["\n".join(map(_row_words, file.examples)), "\n".join(_answer_lines(file))]
        parts += ["\n".join(_histogram_lines(each)) for each in file.histograms]
        lines = [line for part in parts if part for line in (*block(part), "")]
        yield from _unfolded(_file_words(file), lines)
    for reward in against.rewards:
        shown = [
            f"{each.before:g} → {each.after:g}  row {each.row}: {_short(each.completion, 200)}"
            for each in reward.examples
        ]
        yield from _unfolded(
            f"reward on the {_reward_words(reward)}", block("\n".join(shown)) if shown else []
        )
    told = [*_cost_words(against.costs), *against.notes]
    for words in told:
        yield f"- {prose(words)}"
    if told:
        yield ""


def prose(text: str) -> str:
    """Writes a text so that GitHub shows it as it is, in one line: no markup, no link, no mention."""
    line = " ".join(visible(text).split())
    # Entities first: none of what follows has a character that they replace.
    line = _entities(line)
    line = _ESCAPED.sub(lambda match: f"\\{match[0]}", line)
    return _BEGINNING.sub(r"\1\\\2", line)


def _entities(text: str) -> str:
    for character, entity in (
        ("&", "&amp;"),
        ("<", "&lt;"),
        (">", "&gt;"),
        ('"', "&quot;"),
        ("$", "&dollar;"),
    ):
        text = text.replace(character, entity)
    # GitHub looks for these in what has become of the Markdown, so an escape would not hide them: a character
    # of no width does. A name after @, a number after # or GH-, an address.
    text = re.sub(r"@(?=\S)", "@\u200b", text)
    text = re.sub(r"#(?=\d)", "#\u200b", text)
    text = re.sub(r"(?i)\bGH-(?=\d)", "GH-\u200b", text)
    text = re.sub(r"(?i)\b(https?|ftp):(?=//)", "\\1:\u200b", text)
    return re.sub(r"(?i)\bwww\.", "www\u200b.", text)


def code(text: str) -> str:
    """Writes a text as code within a line, or within a cell of a table."""
    line = " ".join(visible(text).split()) or " "
    ticks = "`" * (max(map(len, re.findall(r"`+", line)), default=0) + 1)
    pad = " " if line[0] == "`" or line[-1] == "`" else ""
    return f"{ticks}{pad}{line}{pad}{ticks}".replace("|", "\\|")


def block(text: str) -> list[str]:
    """Writes a text as the lines of a block of code, which nothing in it can end."""
    shown = visible(text)
    fence = "`" * max(3, max(map(len, re.findall(r"`+", shown)), default=0) + 1)
    return [f"{fence}text", *shown.splitlines(), fence]
