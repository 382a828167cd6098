"""The result as tables and as SVG, in the look of Keyfall's other charts."""

import html
import pathlib
import re

TOP = pathlib.Path(__file__).resolve().parent.parent.parent
WIDTH, LEFT, RIGHT = 860.0, 56.0, 836.0
# Where bars begin, and how high a line is.
BARS, LINE = 200.0, 26.0
PARTS = [("tcp_gbps", "TCP, one stream, Gbit/s", 2), ("tcp4_gbps", "TCP, four streams, Gbit/s", 2),
         ("udp64_kpps", "UDP of 64 octets, thousand packets a second, less than 1 % lost", 0)]
SPREAD = {"tcp_gbps": ("tcp", 1), "tcp4_gbps": ("tcp4", 1), "udp64_kpps": ("udp", 1000)}


def draw(result: dict) -> str:
    parts = [part for part in PARTS if result[part[0]]]
    height = 84 + sum(46 + LINE * len(result[key]) for key, *_ in parts)
    height += 18 * (1 + len(result["versions"])) + 12
    sheet = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:.0f} {height:.0f}" role="img"'
        ' font-family="system-ui, sans-serif" font-size="13">',
        "<title>Packets side by side: goodput of TCP, peak of small UDP packets</title>",
        f"<style>{style()}</style>",
        f'<rect class="paper" width="{WIDTH:.0f}" height="{height:.0f}"/>',
        text(LEFT, 24, "Packets side by side", 'font-size="16" font-weight="600"'),
        text(LEFT, 44, f"bench/packets, {result['date']}: medians of {result['rounds']} alternating"
             f" rounds; {result['cores']} cores of “{result['processor']}”, Linux"
             f" {result['kernel'].split('-')[0]}", 'class="faint"'),
    ]
    y = 76.0
    for part in parts:
        y = bars(sheet, result, part, y)
    sheet.append(text(LEFT, y, "Strokes: from the lowest round to the highest. Measured were:",
                      'class="faint"'))
    for name, told in result["versions"].items():
        y += 18
        words = ", ".join(filter(None, (told["version"], told["age"], told["remark"])))
        sheet.append(text(LEFT, y, f"{name}: {words}", 'class="faint"'))
    return "\n".join([*sheet, "</svg>", ""])


def bars(sheet: list, result: dict, part: tuple, y: float) -> float:
    """Draws one figure of every program from y on; where it ends."""
    key, heading, digits = part
    kept, scale = SPREAD[key]
    spread = {name: [end / scale for end in result["spread"][name][kept]] for name in result[key]}
    most = max(high for _, high in spread.values()) or 1
    wide = (RIGHT - 60 - BARS) / most
    sheet.append(text(LEFT, y, heading, 'font-weight="600"'))
    y += 14
    for name, value in sorted(result[key].items(), key=lambda item: -item[1]):
        low, high = spread[name]
        sheet.append(text(LEFT, y + 13, name, 'font-weight="600"' if name == "keyfall" else ""))
        sheet.append(
            f'<rect class="{colour(name)}" x="{BARS:.1f}" y="{y:.1f}" width="{value * wide:.1f}"'
            f' height="18.0"><title>{html.escape(name)}: {value:,.{digits}f} ({low:,.{digits}f} to'
            f" {high:,.{digits}f})</title></rect>")
        sheet.append(f'<line class="axis" x1="{BARS + low * wide:.1f}" y1="{y + 9:.1f}"'
                     f' x2="{BARS + high * wide:.1f}" y2="{y + 9:.1f}" stroke-width="2"/>')
        sheet.append(text(BARS + high * wide + 6, y + 13, f"{value:,.{digits}f}", 'class="faint"'))
        y += LINE
    return y + 32


def style() -> str:
    """The style of the other charts, from where they have it."""
    source = (TOP / "crates/keyfall/src/chart.rs").read_text(encoding="utf-8")
    lines = re.search(r'const STYLE: &str = "\\\n(.*?)";', source, re.DOTALL).group(1)
    return re.sub(r"\\\n\s*", "", lines)


def colour(name: str) -> str:
    return {"keyfall": "c3", "keyfall-10k": "c3", "bare": "c2", "veth": "c5"}.get(name, "c4")


def text(x: float, y: float, words: str, attributes: str = "") -> str:
    return f'<text {attributes} x="{x:.1f}" y="{y:.1f}">{html.escape(words)}</text>'


def table(result: dict) -> str:
    lines = [f"{result['cores']} cores of \"{result['processor']}\", Linux {result['kernel']},"
             f" {result['date']}; {result['busy_before']:.0%} busy with other things before;"
             f" medians of {result['rounds']} rounds",
             "", "| | TCP Gbit/s | 4 streams | UDP 64 kpps | cores used, of them its own | version |",
             "|---|---|---|---|---|---|"]
    for name, told in result["versions"].items():
        words = ", ".join(filter(None, (told["version"], told["age"], told["remark"])))
        lines.append(
            f"| {name} | {result['tcp_gbps'][name]:.2f} | {result['tcp4_gbps'][name]:.2f} |"
            f" {result['udp64_kpps'][name]:.0f} |"
            f" {result['processor_use'][name] * result['cores']:.2f},"
            f" {result['own_cores'][name]:.2f} | {words} |")
    lines += [f"left out: {name}: {why}" for name, why in result["skipped"].items()]
    lines.append("")
    for limit in result["limits"]:
        known = "not measured" if limit["is"] is None else f"{limit['is']:.2f}"
        verdict = {True: "holds", False: "MISSED", None: "not judged"}[limit["holds"]]
        bound = (f"at least {limit['at_least']}" if "at_least" in limit
                 else f"at most {limit['at_most']}")
        lines.append(f"packets: {verdict:<10} {limit['what']}: {known}, {bound}")
    return "\n".join(lines)
