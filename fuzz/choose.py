"""Chooses the inputs of a corpus: choose.py CONTROL COUNT prints the paths of at most COUNT inputs that together cover the most.

CONTROL is what libFuzzer leaves of a merge (-merge_control_file): two numbers, the paths, then lines `STARTED index size`, `FT index feature…`.
"""

import sys

lines = open(sys.argv[1]).read().split("\n")
count = int(lines[0])
paths = lines[2 : 2 + count]
features, sizes = {}, {}
for line in lines[2 + count :]:
    words = line.split()
    if words[:1] == ["STARTED"]:
        sizes[int(words[1])] = int(words[2])
    elif words[:1] == ["FT"]:
        features[int(words[1])] = set(words[2:])
covered = set()
for _ in range(int(sys.argv[2])):
    # The most of what is new, and of those the smallest.
    best = max(features, key=lambda index: (len(features[index] - covered), -sizes[index]), default=None)
    if best is None or not features[best] - covered:
        break
    covered |= features.pop(best)
    print(paths[best])
