"""The library does not need its laws; they need hypothesis, and say so."""

import subprocess
import sys


def output_of(script: str) -> str:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()


def test_the_library_does_not_import_them() -> None:
    assert output_of(
        "import sys, infoassign; print('infoassign.testing' in sys.modules, 'hypothesis' in sys.modules)"
    ) == ("False False")


def test_without_hypothesis_they_say_what_to_install() -> None:
    script = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.partition('.')[0] in ('hypothesis', 'flint'):\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "import infoassign\n"
        "try:\n"
        "    import infoassign.testing\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    assert output_of(script).endswith("install it with: pip install infoassign[testing]")


def test_without_flint_only_the_proofs_are_missing() -> None:
    script = (
        "import sys\n"
        "sys.modules['flint'] = None\n"
        "import numpy as np\n"
        "from infoassign.testing import certify, laws\n"
        "try:\n"
        "    certify(np.zeros((2, 2)), np.zeros(2), epsilon=0.5, strength=0.5)\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    assert output_of(script) == "this needs python-flint; install it with: pip install infoassign[testing]"
