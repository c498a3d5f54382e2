"""MLflow as a person meets it: the registry, predictions, servers."""
