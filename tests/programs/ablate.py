"""Runs an experiment: its map as JSON, the folder, the launcher, files of parts."""

import json
import sys

from llamazoo.ablation import run

if __name__ == "__main__":
    run(json.loads(sys.argv[1]), sys.argv[2], launcher=sys.argv[3], workers=2, parts=sys.argv[4:])
