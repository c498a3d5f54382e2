"""One arithmetic: the settings by which a kernel computes the same bytes on every x86-64 processor with AVX2.

Each library below chooses its code by the processor it finds; the settings make all of them choose the same. They must
stand in the environment before the first import.
"""

import contextlib
import functools
import importlib.metadata
import os
import platform
import re
import sys
import sysconfig
from pathlib import Path

NAME = "linux-x86_64-avx2"
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
X86 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "COMPATIBLE",  # its other branches follow the vendor
    "OPENBLAS_CORETYPE": "Haswell",  # of NumPy and SciPy
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
}
# Another number of threads rounds sums in another way; a notebook that sets its own number has it everywhere.
SETTINGS = ONE_THREAD | (X86 if platform.machine().lower() in ("x86_64", "amd64") else {})
# What a person has set for these libraries, for Python and for matplotlib does not reach a kernel.
NOT_PASSED_ON = ("PYTHON", "ATEN_", "ONEDNN_", "DNNL_", "MKL_", "OPENBLAS_", "NPY_", "OMP_", "KMP_", "GOMP_",
                 "NUMEXPR_", "MPL", "MATPLOTLIB", "GLIBC_TUNABLES", "NBPROOF_DEBUG", "NBPROOF_LIVE",
                 "NBPROOF_WARM")


def clean(environment: dict[str, str]) -> dict[str, str]:
    """`environment` with the settings, and without what a person has set for the same libraries."""
    return {name: value for name, value in environment.items() if not name.startswith(NOT_PASSED_ON)} | SETTINGS


def environment(output_root: Path, events: Path) -> dict[str, str]:
    """The environment variables of a stage's kernel."""
    ours = {"NBPROOF_OUTPUT": str(output_root), "NBPROOF_EVENTS": str(events), "PYTHONHASHSEED": "0",
            "PYTHONNOUSERSITE": "1"}
    package, rc = Path(__file__).parents[2], Path(sysconfig.get_path("purelib"), "matplotlib/mpl-data/matplotlibrc")
    if package != Path(sysconfig.get_path("purelib")):  # a source tree, or the copy of one that Ray sent here
        ours["PYTHONPATH"] = str(package)
    if rc.exists():  # before the file in the user's own folder
        ours["MATPLOTLIBRC"] = str(rc)
    return clean(dict(os.environ)) | ours


def machine() -> str:
    """The name of the arithmetic that the settings give in this environment; NAME where it is the one of all x86-64."""
    if sys.platform == "linux" and platform.machine() == "x86_64":
        return (NAME if _has_avx2() else NAME.replace("avx2", "sse")) + _build()
    return f"{platform.system()}-{platform.machine()}{_build()}".lower()


@functools.cache
def _build() -> str:
    """What is added for PyTorch's build without CUDA, of which nobody has shown that it rounds as the other does."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return "-torch-cpu" if importlib.metadata.version("torch").endswith("+cpu") else ""
    return ""


def _has_avx2() -> bool:
    """As NumPy finds it where it is loaded, also on a processor that is emulated; else as Linux says."""
    if "numpy" not in sys.modules:  # its import takes as long as reading dvc.lock
        return bool(re.search(r"(?m)^flags\s*:.*\bavx2\b", Path("/proc/cpuinfo").read_text(encoding="utf-8")))
    extensions = sys.modules["numpy"].show_config(mode="dicts")["SIMD Extensions"]
    return bool({"X86_V3", "AVX2"} & {*extensions.get("baseline", ()), *extensions.get("found", ())})


def process() -> str:
    """The name of the arithmetic of this process, which may have a GPU; see `machine`."""
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_initialized():
        return f"cuda-{torch.cuda.get_device_name()}".lower().replace(" ", "-")
    return machine()


def changed() -> list[str]:
    """What in this process is not as the settings say, one text each."""
    wrong = [f"{name} is {os.environ.get(name, 'not set')} instead of {value}"
             for name, value in SETTINGS.items() if os.environ.get(name) != value]
    torch = sys.modules.get("torch")
    if torch and machine().startswith(NAME) and (found := torch.backends.cpu.get_cpu_capability()) != "AVX2":
        wrong.append(f"PyTorch computes with {found} instead of AVX2")
    return wrong
