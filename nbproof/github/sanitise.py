"""A report that came out of a run of untrusted code: kept readable, and made unable to do anything.

A zero-width space breaks each thing that GitHub would act on (mention, reference, link, image, HTML tag, character
reference), inside of code as well: no parsing of Markdown decides what is safe. What a report needs passes by its form.
"""

import html
import re
import unicodedata

BREAK = "\u200b"
MOST = 1_000_000  # characters that are looked at; the poster cuts further
TAG = re.compile(r"</?(?:details|summary|code)>|<br>")
LINK = re.compile(r"\]\(<?(https?://[A-Za-z0-9._~:/?=&%+#-]{1,500})>?\)")
OUT = re.compile(r"(?i)(?:\.|%2e){2}")  # which browsers take for the folder above
FENCE = re.compile(r"^([^\n`~]*(?:(?P<ticks>`{3,})|~{3,}))[^\S\n]*([^\s`]*)(?(ticks)[^\n`]*|[^\n]*)$", re.MULTILINE)
LANGUAGES = {"", "text", "diff", "python", "sh"}
CHART = re.compile(  # a plain chart, whole: Mermaid can also make links and load styles
    r"^```mermaid\n(?:%%\{init: \{[A-Za-z0-9#\"':,{} ]*\}%%\n)?xychart(?:-beta)?\n"
    r"(?: +(?:title|x-axis|y-axis|line|bar) [\w .,:+>\"\[\]-]*\n)+```$", re.MULTILINE)
ACTING = (  # what GitHub acts on; a diff's @@ stays
    r"!(?=\\*\[)", r"\](?=[(\[:])", r"@(?![\s@]|\Z)", r"#(?=\\*\d)", r"(?<=\b[Gg][Hh])-(?=\d)", r":(?=\\*/)",
    r"(?i:\b(?:www|mailto|xmpp)(?=\\*[.:]))")


def sanitised(text: str, links: tuple[str, ...] = ()) -> str:
    """`text` with all broken but headings, tables, emphasis, code, plain charts, folds, links below one of `links`."""
    hidden = {each for each in {*text} - {"\n", "\t"} if unicodedata.category(each) in ("Cc", "Cf", "Cs", "Co", "Cn")}
    text = text[:MOST].translate(dict.fromkeys(map(ord, hidden), "\ufffd"))
    kept, done = [], 0
    for found in sorted([*CHART.finditer(text), *LINK.finditer(text)], key=lambda found: found.start()):
        address = found[1] if found.re is LINK else None
        below = address and not OUT.search(address) and any(f"{address}/".startswith(f"{each}/") for each in links)
        if found.start() < done or (address and not below):
            continue
        kept += [_broken(text[done : found.start()]), f"](<{address}>)" if address else found[0]]
        done = found.end()
    return "".join([*kept, _broken(text[done:])])


def _broken(text: str) -> str:
    text = FENCE.sub(lambda found: found[1] + (found[3] if found[3] in LANGUAGES else "text"), text)
    tags = iter(TAG.findall(text))
    text = TAG.sub("\x00", text).replace("<", f"<{BREAK}")  # no control character is left in the text: this one is ours
    text = re.sub(r"&(#?\w+;)", lambda found: f"&{'' if _harmless(found[0]) else BREAK}{found[1]}", text)
    for acting in ACTING:
        text = re.sub(acting, lambda found: found[0] + BREAK, text)
    return re.sub("\x00", lambda _: next(tags), text)


def _harmless(reference: str) -> bool:
    """Whether a character reference stands for a sign that takes no part in a mention, a reference or an address."""
    sign = html.unescape(reference)
    return len(sign) == 1 and sign in "<>&\"'|`*_[]()!~\\{}\u00a0"
