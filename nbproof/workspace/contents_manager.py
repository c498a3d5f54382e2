"""Jupyter's files of the project: below notebooks/ only source is saved."""

from ipykernel.ipkernel import IPythonKernel
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager

from nbproof.runner.source import save_source_only


class SourceOnlyContents(AsyncLargeFileManager):
    def __init__(self, **options):
        super().__init__(**options)
        self.register_pre_save_hook(save_source_only)

    async def get(self, path, content=True, **options) -> dict:
        """Return what is at `path`; a notebook gets the metadata of the project's kernel.

        JupyterLab would write the same metadata into the open notebook, and take it for a change.
        """
        model = await super().get(path, content=content, **options)
        if content and model["type"] == "notebook":
            metadata = model["content"]["metadata"]
            if metadata.get("kernelspec", {}).get("name") == "python3":
                spec = self.parent.kernel_spec_manager.get_kernel_spec("python3")
                metadata["kernelspec"] |= {"display_name": spec.display_name,
                                           "language": spec.language}
                metadata["language_info"] = dict(IPythonKernel.language_info)
        return model
