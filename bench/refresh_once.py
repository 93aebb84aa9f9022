"""Refreshes everything once, and prints as JSON the CPU seconds of each stage with its checks, and the peak memory.

The place is that of the environment.
"""

import json
import resource
import sys
import time
import uuid

import dagster as dg

from bcw_assets import defs  # first, as in `bcw refresh`
from bcw_assets.operations import history

MIB = 1024  # KiB, in which Linux tells the peak


def main() -> None:
    """Note the CPU time whenever a step begins or ends."""
    starts: dict[str, float] = {}
    seconds: dict[str, float] = {}

    def note(entry: dg.EventLogEntry) -> None:
        event = entry.dagster_event
        if event and event.is_step_start:
            starts[str(event.step_key)] = time.process_time()
        elif event and (event.is_step_success or event.is_step_failure):
            stage = str(event.step_key).removesuffix("_checks")
            seconds[stage] = seconds.get(stage, 0) + time.process_time() - starts[str(event.step_key)]

    with history.open_history() as instance:
        job = defs.resolve_job_def("refresh_job")
        seconds["start-up"] = time.process_time()
        run_id = str(uuid.uuid4())
        instance.add_event_listener(run_id, note)
        quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        result = job.execute_in_process(instance=instance, run_id=run_id, raise_on_error=False, run_config=quiet)
    if not result.success:
        sys.exit("\n".join(history.explain_failure(result.all_events)))
    seconds["all"] = time.process_time()
    print(json.dumps(seconds | {"MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB}))


if __name__ == "__main__":
    main()
