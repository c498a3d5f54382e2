"""One arithmetic: settings by which a kernel computes the same bytes on every x86-64 with AVX2.

Each library below chooses its code by the processor it finds; the settings make all of them choose
the same. They must be in the environment before the first import.
"""

import importlib.metadata
import os
import platform
import re
import sys
import sysconfig
from pathlib import Path

from nbproof.notebook.files import root

NAME = "linux-x86_64-avx2"
# Another number of threads rounds sums differently. A notebook that sets its own has it everywhere.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
X86 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "COMPATIBLE",  # its other branches follow the vendor
    "OPENBLAS_CORETYPE": "Haswell",  # of NumPy and SciPy
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
}
SETTINGS = ONE_THREAD | (X86 if platform.machine().lower() in ("x86_64", "amd64") else {})
# What a person has set for these libraries, Python, matplotlib or MLflow's run reaches no kernel.
NOT_PASSED_ON = ("PYTHON", "ATEN_", "ONEDNN_", "DNNL_", "MKL_", "OPENBLAS_", "NPY_", "OMP_", "KMP_",
                 "GOMP_", "NUMEXPR_", "MPL", "MATPLOTLIB", "GLIBC_TUNABLES", "NBPROOF_DEBUG",
                 "MLFLOW_RUN_ID")


def clean(variables: dict[str, str]) -> dict[str, str]:
    """Return environment variables with the settings and nothing else for the same libraries."""
    return {name: value for name, value in variables.items()
            if not name.startswith(NOT_PASSED_ON)} | SETTINGS


def environment(output_root: Path) -> dict[str, str]:
    """Return the environment variables of a stage's kernel, which writes below `output_root`."""
    packages = Path(sysconfig.get_path("purelib"))
    source, style = Path(__file__).parents[2], packages / "matplotlib/mpl-data/matplotlibrc"
    ours = {"NBPROOF_OUTPUT": str(output_root), "PYTHONHASHSEED": "0", "PYTHONNOUSERSITE": "1"}
    paths = [root() / "notebooks"]  # modules there, also for notebooks in folders below it
    if source != packages:  # a source tree, or the copy of one that Ray sent here
        paths.append(source)
    ours["PYTHONPATH"] = os.pathsep.join(map(str, paths))
    if style.exists():  # takes precedence over the file in the user's own folder
        ours["MATPLOTLIBRC"] = str(style)
    return clean(dict(os.environ)) | ours


def tool_environment() -> dict[str, str]:
    """Return the variables for programs that find this environment's tools.

    What a person has set for other Pythons, such as PYTHONPATH, does not reach them.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    return kept | {"PATH": path, "VIRTUAL_ENV": sys.prefix}


def machine() -> str:
    """Return the name of the arithmetic here: NAME on every x86-64 processor with AVX2."""
    name = f"{platform.system()}-{platform.machine()}".lower()
    if name == "linux-x86_64":
        flags = Path("/proc/cpuinfo").read_text()
        name += "-avx2" if re.search(r"(?m)^flags\s*:.*\bavx2\b", flags) else "-sse"
    torch = next(iter(importlib.metadata.distributions(name="torch")), None)
    # PyTorch's build without CUDA may round differently.
    return name + ("-torch-cpu" if torch and torch.version.endswith("+cpu") else "")


def process() -> str:
    """Return the name of this process's arithmetic: as `machine`, or its GPU if one is in use."""
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_initialized():
        return f"cuda-{torch.cuda.get_device_name()}".lower().replace(" ", "-")
    return machine()


def changed() -> list[str]:
    """Return what in this process is not as the settings say, one text each."""
    wrong = [f"{name} is {os.environ.get(name, 'not set')} instead of {value}"
             for name, value in SETTINGS.items() if os.environ.get(name) != value]
    torch = sys.modules.get("torch")
    found = torch.backends.cpu.get_cpu_capability() if torch else "AVX2"
    if found != "AVX2" and machine().startswith(NAME):
        wrong.append(f"PyTorch computes with {found} instead of AVX2")
    return wrong
