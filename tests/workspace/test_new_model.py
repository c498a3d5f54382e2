"""New models from existing ones: the notebook's names, the parameters, and names that are taken."""

import json

import pytest
from projects import nbproof, tiny

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import from_yaml
from nbproof.workspace.new_model import new_model, renamed


def test_a_name_is_replaced_where_it_names_the_model():
    code = ("from sklearn import svm\nfrom mnist import models\nP = section('models.svm')\n"
            "net = svm.SVC(kernel=\"svm\", name=\"svm\")  # svm\nNAME = 'svm'\nmodels.svm(net)\n"
            "write(f\"models/svm/{svm}\", 'metrics/svm.json', 'data/svms', 'an svm of it')\n")
    assert renamed(code, "models", "svm", "vit") == (
        "from sklearn import svm\nfrom mnist import models\nP = section('models.vit')\n"
        "net = svm.SVC(kernel=\"svm\", name=\"vit\")  # svm\nNAME = 'vit'\nmodels.svm(net)\n"
        "write(f\"models/vit/{svm}\", 'metrics/vit.json', 'data/svms', 'an svm of it')\n")


def test_a_new_model_runs_as_it_is(tmp_path, inside, capsys):
    inside(tiny(tmp_path / "tiny"))
    assert new_model("also") == 0
    assert "also.ipynb and models.also in params.yaml are made from far" in capsys.readouterr().out
    cells = json.loads((tmp_path / "tiny/notebooks/also.ipynb").read_text())["cells"]
    assert cells[0]["source"][0] == "# also\n" and "models.also" in str(cells)
    values = from_yaml((tmp_path / "tiny/params.yaml").read_text())["models"]
    assert values["also"] == values["far"]
    done = nbproof(tmp_path / "tiny", "run", "--no-register")
    assert done.returncode == 0 and "also: every cell ran" in done.stdout, done.stdout


@pytest.mark.parametrize("name, like, message", [
    ("near", "", "it is taken"), ("answers", "", "it is taken"), ("index", "", "it is taken"),
    ("9 lives", "", "a letter first"),
    ("more", "compare", "no model 'compare' to start from; .* makes near, far"),
])
def test_what_cannot_be_made_is_refused(tmp_path, inside, name, like, message):
    folder = inside(tiny(tmp_path / "tiny"))
    before = {path: path.read_bytes() for path in folder.glob("[!.]*/*.*")}
    with pytest.raises(UserError, match=message):
        new_model(name, like)
    assert before == {path: path.read_bytes() for path in folder.glob("[!.]*/*.*")}
