"""Does the default run show what the README says? Exits with 1 and the reason when it does not."""

import json
import sys
from pathlib import Path

RUN = Path("runs/multi_teacher_merge")
LEFT = ("config.yaml", "metrics.csv", "curves.png", "student/model.safetensors", "checkpoints/last.ckpt")


def main() -> None:
    """Check the run folder and the table."""
    missing = [name for name in LEFT if not (RUN / name).exists()]
    if missing or not list(RUN.glob("events.out.tfevents.*")) or not list(RUN.glob("rollouts/*.parquet")):
        sys.exit(f"{RUN} lacks {', '.join(missing) or 'TensorBoard events or rollouts'}")
    models = json.loads((RUN / "results.json").read_text())
    for domain in ("math", "code"):
        ours, teacher = models["student"][domain], models[f"teacher:{domain}"][domain]
        for column, error in (("avg@4", "stderr"), ("greedy", "greedy_stderr")):
            gain = ours[column] - teacher[column]
            noise = 1.96 * (ours[error] ** 2 + teacher[error] ** 2) ** 0.5
            print(f"{domain} {column}: student - teacher = {100 * gain:+.1f} points, 95 % interval +-{100 * noise:.1f}")
            if gain <= noise:
                sys.exit(f"{domain}: the student is not above its teacher outside the interval ({column})")


main()
