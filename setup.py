from setuptools import find_packages, setup

setup(packages=["kintsugi"] + ["kintsugi." + name for name in find_packages(include=["core*", "nodes*", "training*", "headless*"])])
