"""A person's tools: JupyterLab, git, parameters, new models and projects."""
