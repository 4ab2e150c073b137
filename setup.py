from tempfile import TemporaryDirectory

from setuptools import find_packages, setup

# A build folder left in the tree would bring deleted modules back at the next install.
with TemporaryDirectory() as build:
    setup(
        packages=["kintsugi"] + ["kintsugi." + name for name in find_packages(include=["core*", "nodes*", "training*", "headless*"])],
        options={"build": {"build_base": build}},
    )
