"""Many trials of one notebook with other values, proposed and stopped early by Optuna."""

from importlib.util import find_spec

import nbproof.notebook.tracking  # first: MLflow reads its settings
import nbproof.pipeline  # noqa: F401  (first: it shortens the import of nbformat)
from nbproof.notebook.errors import UserError

if not find_spec("optuna"):
    raise UserError("A sweep needs Optuna: install what requirements/sweep.txt lists.")
