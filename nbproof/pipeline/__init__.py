"""The graph of stages: read, checked, run, compared."""

import sys

# jsonschema, which nbformat imports, takes this parser where it is installed. It needs 1.6 s to
# start and checks addresses, which no notebook's format has. (A kernel does not import this.)
sys.modules.setdefault("rfc3987_syntax", None)
