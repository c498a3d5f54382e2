"""A report that came out of a run of untrusted code: kept readable, and made unable to do anything.

A zero-width space breaks each thing that GitHub would act on (mention, reference, link, image, HTML tag, character reference), inside
code as well as outside: no parsing of Markdown decides what is safe. What the report itself needs is let through by exact form.
"""

import html
import re
import unicodedata

BREAK = "\u200b"
MOST = 1_000_000  # characters that are looked at; the poster cuts further
TAG = re.compile(r"</?(?:details|summary|code)>|<br>")
LINK = re.compile(r"\]\(<?(https?://[A-Za-z0-9._~:/?=&%+#-]{1,500})>?\)")
FENCE = re.compile(r"^([^\n`~]*(?:(?P<ticks>`{3,})|~{3,}))[^\S\n]*([^\s`]*)(?(ticks)[^\n`]*|[^\n]*)$", re.MULTILINE)
LANGUAGES = {"", "text", "diff", "python", "sh"}
# A plain chart, whole: Mermaid can also make links and load styles. Its signs are harmless wherever GitHub might see them.
CHART = re.compile(
    r"^```mermaid\n(?:%%\{init: \{[A-Za-z0-9#\"':,{} ]*\}%%\n)?xychart(?:-beta)?\n"
    r"(?: +(?:title|x-axis|y-axis|line|bar) [\w .,:+>\"\[\]-]*\n)+```$", re.MULTILINE
)


def sanitised(text: str, links: tuple[str, ...] = ()) -> str:
    """`text` with every construct broken but headings, tables, emphasis, code, plain charts, folds and links below one of the addresses `links`."""
    text = "".join(each if each in "\n\t" or unicodedata.category(each) not in ("Cc", "Cf", "Cs", "Co", "Cn") else "\ufffd" for each in text[:MOST])
    kept, done = [], 0
    for found in sorted([*CHART.finditer(text), *LINK.finditer(text)], key=lambda found: found.start()):
        address = found[1] if found.re is LINK else None
        if found.start() < done or (address and not _allowed(address, links)):
            continue
        kept += [_broken(text[done : found.start()]), f"](<{address}>)" if address else found[0]]
        done = found.end()
    return "".join([*kept, _broken(text[done:])])


def _allowed(address: str, links: tuple[str, ...]) -> bool:
    return ".." not in address and any(address == each or address.startswith(f"{each.rstrip('/')}/") for each in links)


def _broken(text: str) -> str:
    tags: list[str] = []

    def keep(found: re.Match) -> str:
        tags.append(found[0])
        return "\x00"  # no control character is left in the text, so this one is ours

    text = FENCE.sub(lambda found: found[1] + (found[3] if found[3] in LANGUAGES else "text"), text)
    text = TAG.sub(keep, text)
    text = text.replace("<", f"<{BREAK}")
    text = re.sub(r"!(?=\\*\[)", f"!{BREAK}", text)
    text = re.sub(r"\](?=[(\[:])", f"]{BREAK}", text)
    text = re.sub(r"&(?=#?\w+;)", lambda found: "&" if _harmless(text, found.end()) else f"&{BREAK}", text)
    text = re.sub(r"@(?![\s@]|\Z)", f"@{BREAK}", text)  # a diff's @@ stays
    text = re.sub(r"#(?=\\*\d)|(?<=\b[Gg][Hh])-(?=\d)", lambda found: found[0] + BREAK, text)
    text = re.sub(r":(?=\\*/)|\b(?:www|mailto|xmpp)(?=\\*[.:])", lambda found: found[0] + BREAK, text, flags=re.IGNORECASE)
    rest = iter(tags)
    return re.sub("\x00", lambda _: next(rest), text)


def _harmless(text: str, start: int) -> bool:
    """Whether the character reference that begins before `start` stands for a sign that takes no part in a mention, a reference or an address."""
    name = text[start : text.index(";", start) + 1]
    sign = html.unescape(f"&{name}")
    return len(sign) == 1 and sign in "<>&\"'|`*_[]()!~\\{}\u00a0"
