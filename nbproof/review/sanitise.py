"""Makes the report of untrusted code harmless and keeps it readable.

A zero-width space breaks each thing that GitHub would act on (mention, reference, link, image, HTML
tag, character reference), inside of code as well: no parsing of Markdown decides what is safe.
What a report needs passes by its form. Every pattern takes time that grows with the text alone.
"""

import re

from nbproof.review.markdown import plain

BREAK = "\u200b"
LONGEST = 1_000_000  # characters that are read; GitHub takes 65,536 in a comment
TAG = re.compile(r"</?(?:details|summary|code)>|<br>")
LINK = re.compile(r"\]\(<?(https?://[A-Za-z0-9._~:/?=&%+#-]{1,500})>?\)")
PARENT = re.compile(r"(?i)(?:\.|%2e){2}")  # browsers take it for the folder above
FENCE = re.compile(r"^([^\n`~]*(?:`{3,}|~{3,}))([^\n]*)", re.MULTILINE)
LANGUAGES = {"text", "diff", "python", "sh"}
CHART = re.compile(  # a plain chart, whole: Mermaid can also make links and load styles
    r"^```mermaid\n(?:%%\{init: \{[A-Za-z0-9#\"':,{} ]*\}%%\n)?xychart(?:-beta)?\n"
    r"(?: +(?:title|x-axis|y-axis|line|bar) [\w .,:+>\"\[\]-]*\n)+```$", re.MULTILINE)
REFERENCE = re.compile(r"&(?!(?:lt|gt|amp|quot|#x27);)(?=#?\w+;)")  # but those of html.escape
ACTING = (  # what GitHub acts on; a diff's @@ stays
    r"!(?=\\*\[)", r"\](?=[(\[:])", r"@(?![\s@]|\Z)", r"#(?=\\*\d)", r"(?<=\b[Gg][Hh])-(?=\d)",
    r":(?=\\*/)", r"(?i:\b(?:www|mailto|xmpp)(?=\\*[.:]))")


def sanitised(text: str, *links: str) -> str:
    """Return `text` with all broken but headings, tables, emphasis, code, plain charts, folds and
    links to addresses below one of `links` ("": none)."""
    text = plain(text[:LONGEST])
    allowed = tuple(f"{link.rstrip('/')}/" for link in links if link)
    parts, done = [], 0
    matches = [*CHART.finditer(text), *LINK.finditer(text)]
    for match in sorted(matches, key=lambda match: match.start()):
        address = match[1] if match.re is LINK else ""
        below = f"{address}/".startswith(allowed) and not PARENT.search(address)
        if match.start() < done or (address and not below):
            continue
        parts += [_broken(text[done : match.start()]), f"](<{address}>)" if address else match[0]]
        done = match.end()
    return "".join([*parts, _broken(text[done:])])


def _broken(text: str) -> str:
    text = FENCE.sub(_plain_fence, text)
    tags = iter(TAG.findall(text))
    text = TAG.sub("\x00", text).replace("<", f"<{BREAK}")  # the text itself has no \x00 any more
    text = REFERENCE.sub(f"&{BREAK}", text)
    for acting in ACTING:
        text = re.sub(acting, lambda match: match[0] + BREAK, text)
    return re.sub("\x00", lambda _: next(tags), text)


def _plain_fence(match: re.Match) -> str:
    """Return the opening of a code block with a language that GitHub only colours."""
    if match[1].endswith("`") and "`" in match[2]:
        return match[0]  # code within a line
    language = "".join(match[2].split()[:1])
    return match[1] + (language if language in LANGUAGES or not language else "text")
