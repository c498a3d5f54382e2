"""What every page has around its content: policy, style, light and dark."""

import html
from pathlib import Path

from pygments.formatters import HtmlFormatter

CSS = Path(__file__).with_name("page.css")
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def whole(title: str, body: str) -> str:
    """A page around `body`, which is HTML already; `title` is text."""
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{_style()}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )


def _style() -> str:
    """The page's own rules and the colours of code, for light and for dark."""
    light, dark = (HtmlFormatter(style=style).get_style_defs(".highlight") for style in ("default", "github-dark"))
    own = CSS.read_text(encoding="utf-8")
    return (f"{own}\n{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n"
            ".highlight, .highlight pre { background: none; }\n")
