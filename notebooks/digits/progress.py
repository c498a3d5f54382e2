"""What a person may see while a notebook works, and no output may hold: seconds, epochs, warnings of the moment."""

import json
import os
import sys
from pathlib import Path


def say(**event) -> None:
    """Tell whoever runs the notebook: one JSON line appended to PROGRESS_FILE, or a line on stderr where a person is watching."""
    if path := os.environ.get("PROGRESS_FILE"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")
    else:
        print("  ".join(f"{key} {value}" if key != "message" else value for key, value in event.items()), file=sys.stderr)
