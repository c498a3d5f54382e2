"""Many trials of one notebook with other values, proposed and stopped early by Optuna."""

import nbproof.notebook.tracking  # first: MLflow reads its settings
import nbproof.pipeline  # noqa: F401  (first: it shortens the import of nbformat)
