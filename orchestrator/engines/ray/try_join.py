"""Tries to join the Ray at an address: `python -m orchestrator.engines.ray.try_join ADDRESS`.

It runs as a process of its own, because Ray may keep the process that connects waiting for minutes,
or end it. It prints one line of JSON: what joining raised, and whether that was about the token.
"""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout


def try_join(address: str) -> dict[str, str | bool]:
    """Joins the Ray and leaves it again. Returns `joined` and where its `dashboard` is; or the
    error as `text` and `cause`, and whether Ray `refused` the token, or the lack of one.
    """
    # Ray prints to standard output, which is for the answer alone.
    with redirect_stdout(sys.stderr):
        import ray
        from ray.exceptions import AuthenticationError

        try:
            context = ray.init(address=address, log_to_driver=False, logging_level="CRITICAL")
        except (Exception, SystemExit) as error:
            cause = str(error.__cause__ or "")
            # Where the head refuses, Ray quotes its own error in the text of another.
            refused = isinstance(error, AuthenticationError) or AuthenticationError.__name__ in (
                f"{error} {cause}"
            )
            text = str(error).strip() or type(error).__name__
            return {"joined": False, "refused": refused, "text": text, "cause": cause}
        dashboard = (context.dashboard_url or "").removeprefix("http://")
        ray.shutdown()
    return {"joined": True, "dashboard": dashboard}


if __name__ == "__main__":
    print(json.dumps(try_join(sys.argv[1])))
