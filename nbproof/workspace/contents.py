"""Notebooks as JupyterLab gets them: with what it would note of the kernel itself, and take for a change."""

from ipykernel.ipkernel import IPythonKernel
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager

from nbproof.notebook.files import root
from nbproof.runner.source import save_source_only


def kernel_name() -> str:
    """What people see of the project's kernel."""
    return f"{root().name} (.venv)"


class Contents(AsyncLargeFileManager):
    """The files of the project; below notebooks/ source alone is saved, without what is added here."""

    def __init__(self, **options):
        super().__init__(**options)
        self.register_pre_save_hook(save_source_only)

    async def get(self, path, content=True, **options) -> dict:
        """What is at `path`; a notebook of the project's kernel has that one's name and language."""
        model = await super().get(path, content=content, **options)
        if content and model["type"] == "notebook":
            metadata = model["content"]["metadata"]
            if metadata.get("kernelspec", {}).get("name") == "python3":
                metadata["kernelspec"] = {"name": "python3", "display_name": kernel_name(), "language": "python"}
                metadata["language_info"] = dict(IPythonKernel.language_info)
        return model
