"""Trains several recipes at once on one GPU, small as they are, and keeps the state of the one that scores best on the bars.

    python3 sweep.py --seconds 440 --bars FOLDER --out FOLDER [--recipes level32,plain32]

Leaves out/best (a state folder of train.py) and out/sweep.json (curves and scores of all).
"""
import argparse
import json
import os
import shutil
import subprocess
import sys

from train import RECIPES


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", default=",".join(RECIPES))
    parser.add_argument("--seconds", required=True)
    parser.add_argument("--bars", required=True)
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "train.py")
    folders = {name: f"/tmp/sweep/{name}" for name in arguments.recipes.split(",")}
    running = {
        name: subprocess.Popen([sys.executable, script, "--recipe", name, "--state", folder, "--seconds", arguments.seconds, "--bars", arguments.bars])
        for name, folder in folders.items()
    }
    failed = [name for name, process in running.items() if process.wait() != 0]
    states = {}
    for name, folder in folders.items():
        if name not in failed:
            with open(os.path.join(folder, "state.json")) as file:
                states[name] = json.load(file)
    with open(os.path.join(arguments.out, "sweep.json"), "w") as file:
        json.dump(states, file)
    # A patch that is shorter than the horizon is scored at fewer steps: no candidate, but comparable step by step.
    whole = {name: state["scores"] for name, state in states.items() if "over_garch_step_24" in state["scores"]}
    for name, scores in sorted(whole.items(), key=lambda item: item[1]["over_garch"]):
        print(name, states[name]["steps"], json.dumps({k: round(v, 4) for k, v in scores.items()}))
    best = min(whole, key=lambda name: whole[name]["over_garch"])
    shutil.copytree(folders[best], os.path.join(arguments.out, "best"), dirs_exist_ok=True)
    print("best:", best)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
