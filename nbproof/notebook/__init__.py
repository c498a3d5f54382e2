"""What a notebook of any project imports: parameters, files, progress, tracking, models.

    from nbproof.notebook import chosen, section, source, write    # parameters, files
    from nbproof.notebook import models, progress, tracking        # MLflow models, curves, a run

    P = section("models.NAME")
    run = tracking.start("NAME", chosen(P, globals()), data=("table", digest))
    with progress.follow(steps=epochs, parts=batches, charts={"loss": ["train_loss"]}) as follower:
        follower.part()                                            # one batch is done
        follower.step({"train_loss": 0.3}); run.log(1, {"train_loss": 0.3})
    models.save_model("NAME", lambda folder: mlflow.sklearn.save_model(net, folder, signature=...))
    run.model("NAME")
    run.finish({"rmse": 53.5})

Importing this loads neither MLflow nor IPython.
"""

from nbproof.notebook.errors import Fallback, require
from nbproof.notebook.files import output, output_folder, source, write
from nbproof.notebook.params import chosen, section
from nbproof.notebook.progress import show

__all__ = [
    "Fallback", "chosen", "output", "output_folder", "require", "section", "show", "source",
    "write",
]
