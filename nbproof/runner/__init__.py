"""One notebook, executed exactly: checked parameters, every cell, the same bytes in each run."""

import sys

RESULTS = 1
"""The number of what in nbproof shapes results: kernel settings, execution, the API's writers.

The file of pins carries it, so a change of it runs every stage again. tests/runner fails where
bytes change and the number does not.
"""

# jsonschema, which nbformat imports, takes this parser where it is installed. It needs 1.6 s to
# start and checks addresses, which no notebook's format has.
sys.modules.setdefault("rfc3987_syntax", None)
