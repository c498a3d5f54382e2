"""The number of what in nbproof shapes results: it rises when the same notebook gives other bytes.

tests/golden/results.json holds the bytes of the last number. GOLDEN=write makes it anew: after
RESULTS in nbproof/runner/__init__.py was raised, or where other packages than before were pinned.
"""

import hashlib
import importlib.metadata
import json
import os

import pytest
from projects import ROOT, nbproof, notebook, project, results

from nbproof.runner import RESULTS, determinism

GOLDEN = ROOT / "tests" / "golden" / "results.json"
PACKAGES = ("ipykernel", "matplotlib", "mlflow", "nbformat", "numpy", "pandas", "papermill",
            "scikit-learn", "scipy")
DVC_YAML = """\
stages:
  digits:
    cmd: nbproof stage
    deps: [notebooks/digits.ipynb]
    params: [digits]
    outs: [models/digits, models/digits.txt, data/digits, reports/digits.ipynb]
    metrics: [{metrics/digits.json: {cache: false}}]
"""
CELLS = (
    "#!# Digits\n\n> small ones",
    "import json\n\nimport matplotlib.pyplot as plt\nimport mlflow\nimport pandas as pd\n"
    "from mlflow.models import infer_signature\nfrom sklearn.datasets import load_digits\n"
    "from sklearn.linear_model import LogisticRegression\n\nfrom nbproof.notebook import models, "
    "output, output_folder, progress, section, show, tracking, write\n\nP = section('digits')",
    "@rounds: int = P.rounds  # [1, 99] rounds of the solver\nseed: int | None = P.seed  # of all",
    "images, labels = load_digits(return_X_y=True)\n"
    "run = tracking.start('digits', {'rounds': rounds})\n"
    "with progress.follow(steps=2, charts={'loss': ['loss']}) as follower:\n"
    "    for step in (1, 2):\n        follower.step({'loss': 1 / step})\n"
    "        run.log(step, {'loss': 1 / step})",
    "model = LogisticRegression(max_iter=rounds, random_state=seed)\n"
    "model.fit(images[:900], labels[:900])\naccuracy = model.score(images[900:], labels[900:])\n"
    "show(f'**{accuracy:.3f}** are right')",
    "figure, axes = plt.subplots(figsize=(3, 2))\naxes.imshow(model.coef_)\n"
    "axes.set_title('what it looks at')\nrun.figure('coefficients', figure)",
    "pd.DataFrame(model.coef_[:3, 19:24])",
    "signature = infer_signature(images[:2], model.predict(images[:2]))\n"
    "models.save_model('digits', lambda folder: mlflow.sklearn.save_model(\n"
    "    model, folder, signature=signature, pip_requirements=['scikit-learn']))\n"
    "write('metrics/digits.json', json.dumps({'error': 1 - accuracy}) + '\\n')\n"
    "output('models/digits.txt').write_text(str(model.coef_.sum()))\n"
    "folder = output_folder('data/digits')\n"
    "(folder / 'one.csv').write_text(','.join(map(str, images[1])))\n"
    "run.model('digits')\nrun.finish({'error': 1 - accuracy})\nprint('written')",
)


@pytest.mark.skipif(determinism.machine() != determinism.NAME,
                    reason="the bytes are those of x86-64 with AVX2")
def test_other_bytes_have_another_number(tmp_path):
    folder = project(tmp_path / "project", dvc_yaml=DVC_YAML,
                     params_yaml="digits: {rounds: 30, seed: null}\n")
    notebook(folder / "notebooks" / "digits.ipynb", *CELLS)
    done = nbproof(folder, "run")
    assert done.returncode == 0, done.stdout
    md5s = {name: hashlib.md5(content).hexdigest() for name, content in results(folder).items()}
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    now = {"number": RESULTS, "packages": versions, "md5": md5s}
    if os.environ.get("GOLDEN") == "write":
        GOLDEN.write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8")
    before = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert versions == before["packages"], "other packages: write the bytes anew, GOLDEN=write"
    other = [name for name in md5s | before["md5"] if md5s.get(name) != before["md5"].get(name)]
    assert not other or before["number"] != RESULTS, f"other bytes, so raise RESULTS: {other}"
    assert before["number"] == RESULTS, "RESULTS was raised: write its bytes, GOLDEN=write"
