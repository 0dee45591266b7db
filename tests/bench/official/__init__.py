"""The official implementations that compare_torch.py knows, a module a family: see its text."""
import importlib.util
import sys
import types

import torch


def stand_in(name, **contents):
    """Puts a module with these contents in the place of one that the official code imports but needs for no forecast."""
    module = types.ModuleType(name)
    module.__path__ = []  # its own parts may be stood in for too
    vars(module).update(contents)
    sys.modules[name] = module


def stand_in_if_absent(name, **contents):
    if importlib.util.find_spec(name) is None:
        stand_in(name, **contents)


def compile_part(owner, *names):
    """Compiles these attributes of a model or of a part of it; returns a function that undoes it."""
    plain = {name: getattr(owner, name) for name in names}
    for name, part in plain.items():
        setattr(owner, name, torch.compile(part, mode="reduce-overhead"))

    def undo():
        for name, part in plain.items():
            setattr(owner, name, part)

    return undo
