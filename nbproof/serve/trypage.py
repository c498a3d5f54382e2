"""`nbproof try NAME`: reports/try-NAME.html, one file that asks a model in the browser, for reviewers without a server.

It is the project's own page (`serve: {page: ...}`), the model's ONNX file, and onnxruntime-web from its npm package.
"""

import base64
import gzip
import hashlib
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root, write_whole
from nbproof.pipeline import config

PACKAGE = "onnxruntime-web@1.30.0"
BUNDLE, WASM = "package/dist/ort.wasm.bundle.min.mjs", "package/dist/ort-wasm-simd-threaded.wasm"
DIGESTS = {
    BUNDLE: "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    WASM: "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}


def try_page(name: str) -> int:
    """Write the page of the model `name`; says how large it is."""
    from nbproof.serve.model import Portable
    from nbproof.serve.store import described

    contract = config.load()
    page = contract.page and root() / contract.page
    local = page and page.with_name(f"{page.stem}.local.js")
    if not page or not local.exists():
        raise UserError(f"{config.CONTRACT} names no page (serve: page) with a .local.js beside it, which prepares its "
                      "inputs.")
    file = root() / "models" / f"{name}.onnx"
    if not file.exists():
        raise UserError(f"models/{name}.onnx is not there: nbproof run makes it, nbproof pull brings it.")
    model = Portable(file.read_bytes(), described(name, "of this branch"))
    facts = {"model": name, "version": model.facts.version, "labels": model.labels, "shape": list(model.shape[1:]),
             "output": model.first, "limit": model.limit if model.limit < 1e300 else None,
             "metadata": model.facts.metadata}
    text = _whole(page, local, facts, file.read_bytes())
    place = write_whole(root() / "reports" / f"try-{name}.html", text)
    print(f"reports/{place.name}: {place.stat().st_size / 1e6:.1f} MB, one file; open it in a browser.")
    return 0


def _whole(page: Path, local: Path, facts: dict, model: bytes) -> str:
    """The page with all that it needs inside, and a policy that lets it ask for nothing."""
    bundle, wasm = _runtime()
    exports = re.search(r"export\{([^}]*)\};?\s*(//#.*)?\s*$", bundle)
    names = (each.split(" as ") for each in exports.group(1).split(","))
    bundle = bundle[: exports.start()] + f"globalThis.ort={{{','.join(f'{new}:{old}' for old, new in names)}}};"
    style = page.with_suffix(".css").read_text(encoding="utf-8") if page.with_suffix(".css").exists() else ""
    glue = Path(__file__).with_name("local.js")
    scripts = [each.read_text(encoding="utf-8") for each in (local, glue, page.with_suffix(".js"))]
    title = f"<title>Try {facts['model']}</title>"
    text = re.sub(r"<title>.*?</title>", title, page.read_text(encoding="utf-8"), flags=re.DOTALL)
    text = re.sub(r"\s*<(link rel=.(stylesheet|icon)|script src=)[^>]*>(</script>)?", "", text)
    data = {"nbproof-facts": json.dumps(facts).replace("<", "\\u003c"),
            "nbproof-model": base64.b64encode(model).decode(), "nbproof-runtime": base64.b64encode(wasm).decode()}
    held = "".join(f'<script type="text/plain" id="{id}">{content}</script>\n' for id, content in data.items())
    code = "".join(f"<script>{each}</script>\n" for each in scripts) + f'<script type="module">{bundle}</script>\n'
    allowed = " ".join(map(_hash, [*scripts, bundle]))
    policy = (f"default-src 'none'; script-src 'wasm-unsafe-eval' {allowed}; style-src {_hash(style)}; "
              "img-src data: blob:; base-uri 'none'; form-action 'none'")
    head = f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n<style>{style}</style>\n'
    return text.replace("<title>", head + "<title>", 1).replace("</body>", held + code + "</body>", 1)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _runtime() -> tuple[str, bytes]:
    """onnxruntime-web's script, and its WebAssembly packed; from npm once, then from scratch/."""
    kept = root() / "scratch" / "onnxruntime-web" / PACKAGE.partition("@")[2]
    files = {name: kept / Path(name).name for name in DIGESTS}
    if not all(file.exists() for file in files.values()):
        _fetch(files)
    for name, file in files.items():
        if hashlib.sha256(file.read_bytes()).hexdigest() != DIGESTS[name]:
            raise UserError(f"{file.name} is not the one of {PACKAGE}: remove {kept.relative_to(root())} and try again.")
    return files[BUNDLE].read_text(encoding="utf-8"), gzip.compress(files[WASM].read_bytes(), 9, mtime=0)


def _fetch(files: dict[str, Path]) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise UserError("npm is needed, to bring onnxruntime-web: install Node.js (on Debian, apt install npm).")
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([npm, "pack", "--silent", PACKAGE], cwd=folder, capture_output=True, text=True)
        packed = next(Path(folder).glob("*.tgz"), None)
        if done.returncode or packed is None:
            raise UserError(f"npm did not bring {PACKAGE}: {' '.join(done.stderr.split())[-200:]}")
        with tarfile.open(packed) as archive:
            for name, file in files.items():
                write_whole(file, archive.extractfile(name).read())
