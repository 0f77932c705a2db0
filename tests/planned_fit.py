"""Plan a run, run it, and say how much memory it took: python planned_fit.py OUT --config ... (options of gopd fit).

OUT is a JSON file: the planned peak and the measured one of the first rank, in bytes.
"""

import json
import os
import resource
import sys
from pathlib import Path

from gopd_lightning.cli import PlanCLI, main, run_cli
from gopd_lightning.planning import Plan

if __name__ == "__main__":
    out, arguments = Path(sys.argv[1]), sys.argv[2:]
    first = "LOCAL_RANK" not in os.environ  # Lightning starts the others by this very command
    if first:
        cli = run_cli(arguments, run=False, kind=PlanCLI)
        plan = Plan(cli.config["trainer"], cli.config_init["model"], cli.config_init["data"])
    main(["fit", *arguments])
    if first:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        out.write_text(json.dumps({"planned": plan.peak, "measured": peak, "stays": plan.stays, "adds": plan.phases}))
