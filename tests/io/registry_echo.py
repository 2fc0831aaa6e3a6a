"""A child that writes down what it is told, for the tests of its parent."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from stream_rec.io.registry_child import serve


class Echo:
    def __init__(self, start):
        self._path, self._uri = Path(start.run_dir) / "told", start.uri

    def _say(self, *what):
        with self._path.open("a") as file:
            file.write(json.dumps(what) + "\n")

    def look_back(self, waiting, notices):
        self._say("look_back", sorted(waiting), [notice["version"] for notice in notices])

    def points(self, points):
        if points[0].key == "refuse":
            raise ValueError(f"no such metric at {self._uri}/api")
        if points[0].key == "die":
            os._exit(9)
        self._say("points", len(points))

    def news(self, news, statistics):
        self._say("news", news.tick, statistics and statistics.name)

    def end(self):
        self._say("end")


if __name__ == "__main__":
    serve(Echo, sys.stdin.buffer, sys.stdout.buffer)
