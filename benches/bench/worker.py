"""The process of one engine: a line of JSON in per question, a line of JSON out per answer.

The clock runs from sending the SQL until every row is a Python tuple of this process. What engines
print goes to standard error.
"""

import gc
import json
import os
import sys
import time

from bench import answers
from bench.engines import ENGINES


def main() -> None:
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(**line) -> None:
        out.write(json.dumps(line) + "\n")
        out.flush()

    setup = json.loads(sys.stdin.readline())
    with open(setup["places"]["answers"]) as file:
        right = json.load(file)
    try:
        engine = ENGINES[setup["engine"]](**setup)
    except Exception as error:
        say(error=described(error))
        return
    say(ready=True)
    for line in sys.stdin:
        question = json.loads(line)
        gc.collect()
        began = time.perf_counter()
        try:
            got = engine.execute(question["sql"])
        except Exception as error:
            say(error=described(error))
            continue
        seconds = time.perf_counter() - began
        got = answers.canonical(got)
        say(seconds=round(seconds, 5), rows=len(got), checksum=answers.checksum(got),
            match=answers.compare(got, right[question["query"]]))


def described(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


if __name__ == "__main__":
    main()
