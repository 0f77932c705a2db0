"""What finished runs leave on disk, made by hand."""

import json

from study.commands import Command, Run


def answered(work, name, rewards, group="", seed=None, domains=("math", "code"), needs=()):
    """A finished run whose model answers every prompt of a domain as `rewards` says: (sampled pairs, greedy)."""
    folder = work / name / "test"
    for domain in domains:
        sampled, greedy = rewards[domain]
        lines(folder / "student-1" / f"{domain}.jsonl", list(sampled))
        lines(folder / "greedy-student-1" / f"{domain}.jsonl", [[one] for one in greedy])
    (folder / "greedy-student-1" / "summary.json").write_text("{}")
    record = [{"command": "gopd fit", "seconds": 40.0}, {"command": "gopd test", "seconds": 10.0}]
    (work / name / "record.json").write_text(json.dumps(record))
    command = Command(words=("gopd", "test"), result=folder / "greedy-*" / "summary.json")
    fit = Command(words=("gopd", "fit"), result=work / name / "student")
    return Run(
        name=name, commands=(fit, command), seconds=1.0, group=group, seed=seed, domains=tuple(domains), needs=needs
    )


def lines(file, prompts):
    """A JSONL of samples, a list of rewards a prompt."""
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {"id": str(i), "sample": k, "reward": reward, "tokens": 10 * (k + 1), "logprob": -1.0}
        for i, rewards in enumerate(prompts)
        for k, reward in enumerate(rewards)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
