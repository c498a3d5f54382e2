"""The champion in production; it has an environment of its own, without MLflow and DVC."""
