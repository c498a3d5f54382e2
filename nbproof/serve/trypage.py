"""`nbproof try NAME`: reports/try-NAME.html, one file that runs a model in the browser.

It is the project's own page (`serve: {page: ...}`), the model's ONNX file, and onnxruntime-web from
its npm package. It sends no request.
"""

import base64
import gzip
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from bs4 import BeautifulSoup

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import CONTRACT, root, write_whole
from nbproof.pipeline import config

PACKAGE = "onnxruntime-web@1.30.0"
SHA256 = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"  # of npm's archive
FILES = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")


def try_page(name: str) -> int:
    """Write the page of the model `name` and print its size."""
    from nbproof.serve.model import from_folder, load

    page = config.load().page and root() / config.load().page
    if not page or not page.with_name(f"{page.stem}.local.js").exists():
        raise UserError(f"{CONTRACT} names no page (serve: page) with a file PAGE.local.js beside "
                        "it, which prepares its inputs in the browser.")
    model = load(from_folder(name))
    facts = {"model": name, "version": "of this branch", "labels": model.labels,
             "shape": model.inputs[0].shape[1:], "output": model.first, "metadata": model.metadata,
             "limit": model.limit if model.limit < 1e300 else None}
    content = (root() / "models" / f"{name}.onnx").read_bytes()
    path = write_whole(root() / "reports" / f"try-{name}.html", _page(page, facts, content))
    print(f"reports/{path.name}: {path.stat().st_size / 1e6:.1f} MB, one file; open it in a "
          "browser.")
    return 0


def _page(page: Path, facts: dict, model: bytes) -> str:
    """Return the page with all that it needs inside, and a policy that allows no request."""
    soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
    for outside in soup.select("title, link[rel=stylesheet], link[rel=icon], script[src]"):
        outside.decompose()
    packed = {name: base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()
              for name, content in zip(("model", "script", "wasm"), (model, *_runtime()))}
    packed["facts"] = json.dumps(facts).replace("<", "\\u003c")
    sheet = page.with_suffix(".css")
    style = sheet.read_text(encoding="utf-8") if sheet.exists() else ""
    sources = (page.with_name(f"{page.stem}.local.js"), Path(__file__).with_name("local.js"),
               page.with_suffix(".js"))
    code = [path.read_text(encoding="utf-8") for path in sources]
    # All scripts are this page's own; blob: is for onnxruntime's, which it holds packed.
    policy = ("default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; "
              "script-src 'unsafe-inline' 'wasm-unsafe-eval' blob:")

    def add(parent, tag: str, text: str = "", **attributes: str) -> None:
        parent.append(soup.new_tag(tag, attrs=attributes, string=text))

    head, body = soup.head or soup, soup.body or soup
    add(head, "meta", **{"http-equiv": "Content-Security-Policy", "content": policy})
    add(head, "title", f"Try {facts['model']}")
    add(head, "style", style)
    for name, text in packed.items():
        add(body, "script", text, type="text/plain", id=f"nbproof-{name}")
    for text in code:
        add(body, "script", text)
    return str(soup)


def _runtime() -> list[bytes]:
    """Return onnxruntime-web's script and its WebAssembly, which npm downloads to scratch/ once."""
    folder = root() / "scratch"
    packed = folder / f"{PACKAGE.replace('@', '-')}.tgz"
    if not packed.exists():
        folder.mkdir(exist_ok=True)
        command = [shutil.which("npm") or "npm", "pack", PACKAGE, "--pack-destination", folder]
        # Outside of the checkout, whose .npmrc may be anybody's.
        done = subprocess.run(command, text=True, capture_output=True, cwd=tempfile.gettempdir())
        if done.returncode:
            reason = " ".join(done.stderr.split())[-300:]
            raise UserError(f"npm did not download {PACKAGE}: {reason}")
    content = packed.read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:  # half of a download, say
        raise UserError(f"scratch/{packed.name} is not {PACKAGE}: remove it and run nbproof try "
                        "again.")
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return [archive.extractfile(f"package/dist/{name}").read() for name in FILES]
