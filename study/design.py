"""From the plan to runs: every run with its commands, what it waits for, and the seconds planned for it."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from study.commands import GOPD, Command, Run, gopd_fit, gopd_test, sources
from study.plan import BASE, COSTS, DOMAINS, GROUP, METHODS, PER_DOMAIN, SAMPLES, Experts, Method, Mode

GRID_SEED = 100  # of what validation decides on; reported runs count from 0
MERGE = "configs/multi_teacher_merge.yaml"


@dataclass(frozen=True)
class Design:
    """All runs of a mode, the most telling first.

    Args:
        mode: The mode.
    """

    mode: Mode
    runs: tuple[Run, ...] = field(init=False)

    def __post_init__(self) -> None:
        found = [*self._means(), *self._models(), *self._grid(), *self._curves(), *self._students()]
        object.__setattr__(self, "runs", tuple(found))

    # What everything else is made of

    def _means(self) -> Iterator[Run]:
        """The larger base, the experts, and their samples for the grid."""
        if any(experts.larger for experts in self.mode.experts.values()):
            yield self._larger_base()
        yield from (self._validated_expert(domain) for domain in DOMAINS)
        for kind, experts in self.mode.experts.items():
            if experts.rate is not None:
                yield from (self._expert(kind, experts, domain) for domain in DOMAINS)
        yield self._samples("early", GRID_SEED)

    def _larger_base(self) -> Run:
        folder = self.mode.work / "larger"
        model, corpus = folder / "model", folder / "data" / "corpus.jsonl"
        rows = {"path": str(corpus), "limit": 64 * self.mode.larger_steps}
        build = ("python", "-m", "gopd_lightning.nano.build", "--out", str(folder / "data"))
        enlarge = ("python", "-m", "study.larger_model", BASE, str(model))
        options = ("--model.student.path", str(model), "--data.train", json.dumps([rows]))
        options += ("--trainer.max_steps", str(self.mode.larger_steps))
        train = gopd_fit(folder / "base", ("configs/nano/pretrain.yaml", "study/lean.yaml"), 0, options)
        commands = (
            Command(words=build, result=folder / "data" / "model" / "config.json"),
            Command(words=enlarge, result=model / "config.json"),
            train,
        )
        seconds = COSTS.corpus + 2 * COSTS.start + COSTS.pretrain * self.mode.larger_steps
        return Run(name="larger", commands=commands, seconds=seconds)

    def _validated_expert(self, domain: str) -> Run:
        """The shipped expert on the validation prompts, for experts that shall stop where it is."""
        name = f"validation/{domain}"
        command = self._measure(name, self.expert("early", domain), "val", (domain,))
        return Run(name=name, commands=(command,), seconds=self._test_seconds(1, self.mode.val_prompts))

    def _expert(self, kind: str, experts: Experts, domain: str) -> Run:
        folder = self.mode.work / "experts" / kind / domain
        assert experts.rate is not None
        steps = experts.steps[domain]
        options: tuple[str, ...] = ("--model.student.path", self.base(kind), "--trainer.max_steps", str(steps))
        options += ("--model.optimizer.lr", f"{experts.rate[domain]:g}", "--data.train", sources("train", (domain,)))
        validation = sources("val", (domain,), self.mode.val_prompts) if experts.like else "[]"
        options += ("--data.val", validation, "--trainer.val_check_interval", "2" if experts.larger else "1")
        commands = [gopd_fit(folder, (f"configs/nano/grpo_{domain}.yaml", "study/expert.yaml"), 0, options)]
        if experts.like:
            words = (*GOPD, "export", str(folder), str(folder / "chosen"), "--ckpt", f"step-{{step:{kind}/{domain}}}")
            commands.append(Command(words=words, result=folder / "chosen" / "model.safetensors"))
        needs = (*(["larger"] if experts.larger else []), *([f"validation/{domain}"] if experts.like else []))
        seconds = COSTS.start * len(commands) + steps * GROUP * PER_DOMAIN * COSTS.grpo * _slower(experts)
        seconds += steps * self.mode.val_prompts * COSTS.sample * experts.like
        return Run(name=f"experts/{kind}/{domain}", commands=tuple(commands), seconds=seconds, needs=needs)

    def _samples(self, kind: str, seed: int) -> Run:
        """One graded response of the experts to each prompt that a run of this length sees, as rows for fine-tuning."""
        folder = self.mode.work / "samples" / kind / str(seed)
        count = PER_DOMAIN * self.mode.steps
        draw = ("python", "-m", "study.rows", "prompts", str(folder), str(seed), str(count))
        commands = [Command(words=draw, result=folder / "code.jsonl")]
        for domain in DOMAINS:
            prompts = [{"path": f"{folder}/{domain}.jsonl", "domain": domain, "name": domain}]
            words = gopd_test("study/teachers.yaml", self.expert(kind, domain), prompts, folder / f"by-{domain}", seed)
            commands.append(Command(words=words, result=folder / f"by-{domain}" / "*" / "summary.json"))
        gather = ("python", "-m", "study.rows", "responses", str(folder))
        commands.append(Command(words=gather, result=folder / "verified.jsonl"))
        seconds = 2 * (COSTS.start + count * COSTS.sample * _slower(self.mode.experts[kind])) + 4
        name = f"samples/{kind}/{seed}"
        return Run(name=name, commands=tuple(commands), seconds=seconds, needs=self._experts_of(kind), seed=seed)

    # What is measured without being trained here

    def _models(self) -> Iterator[Run]:
        """Bases and experts on the test prompts."""
        yield self._measured("models/base", "base", BASE, DOMAINS, ())
        if any(experts.larger for experts in self.mode.experts.values()):
            yield self._measured("models/larger-base", "larger-base", self.base("strong"), DOMAINS, ("larger",))
        for kind in self.mode.experts:
            for domain in DOMAINS:
                name, group = f"models/{kind}/{domain}", f"{kind}/teachers"
                yield self._measured(name, group, self.expert(kind, domain), (domain,), self._experts_of(kind))

    def _measured(self, name: str, group: str, model: str, domains: Sequence[str], needs: tuple[str, ...]) -> Run:
        command = self._measure(name, model, "test", domains)
        seconds = self._test_seconds(len(domains), self.mode.test_prompts)
        return Run(name=name, commands=(command,), seconds=seconds, needs=needs, group=group, domains=tuple(domains))

    def _curves(self) -> Iterator[Run]:
        """The untrained target by lambda, on the test prompts that the students answer."""
        for kind, scales in self.mode.curve.items():
            for corrected in (False, True) if self.mode.experts[kind].larger else (False,):
                name = f"curve/{kind}{'-corrected' if corrected else ''}"
                words = (*GOPD, "test", "--config", MERGE, "--config", "configs/eval/target.yaml")
                words += ("--config", "study/curve.yaml", "--model.teachers", self._teachers(kind, DOMAINS))
                words += ("--data.test", sources("test", DOMAINS, self.mode.test_prompts))
                words += (*self._reference(kind, corrected), "--trainer.default_root_dir", str(self.mode.work / name))
                words += ("--trainer.callbacks.init_args.reward_scales", json.dumps(scales))
                command = Command(words=words, result=self.mode.work / name / "target.json")
                answers = len(scales) * len(DOMAINS) * self.mode.test_prompts * (SAMPLES + 1)
                seconds = COSTS.start + answers * COSTS.mixed * _slower(self.mode.experts[kind])
                yield Run(name=name, commands=(command,), seconds=seconds, needs=self._experts_of(kind))

    # Students

    def _grid(self) -> Iterator[Run]:
        """Every setting that is tried, judged on validation prompts."""
        for tuned, values in self.mode.grids.items():
            for value in values if len(values) > 1 else ():
                weights = tuned == "weights"
                method = Method(how="weights", scale=value) if weights else METHODS[tuned]
                name = f"grid/{tuned}/{value:g}"
                yield self._student(name, "early", method, GRID_SEED, rate=f"{value:g}", split="val")

    def _students(self) -> Iterator[Run]:
        """All reported students: the first seed of everything, then the second, and so on."""
        for seed in range(max([self.mode.seeds, *self.mode.more_seeds.values()])):
            for kind, names in self.mode.methods.items():
                if any(METHODS[name].how in ("raw", "verified") for name in names) and seed < self.mode.seeds:
                    yield self._samples(kind, seed)
                for name in names:
                    if seed < self.seeds(f"{kind}/{name}"):
                        yield self._reported(kind, name, seed)
            if seed < self.mode.seeds:
                yield from (self._single(scale, d, seed) for scale in self.mode.lambdas for d in DOMAINS)

    def seeds(self, group: str) -> int:
        """Seeds of a group of students.

        Args:
            group: "<experts>/<method>".
        """
        if METHODS[group.rpartition("/")[2]].how == "weights":
            return 1
        return self.mode.more_seeds.get(group, self.mode.seeds)

    def _reported(self, kind: str, name: str, seed: int) -> Run:
        method = METHODS[name]
        rate = f"{{rate:{method.tuned_as or name}}}"
        return self._student(f"{kind}/{name}/{seed}", kind, method, seed, rate, "test", group=f"{kind}/{name}")

    def _single(self, scale: float, domain: str, seed: int) -> Run:
        """A student of one teacher, on the prompts of its domain."""
        group = f"single/{scale:g}"
        method, folder = Method(how="full", scale=scale), self.mode.work / group / domain / str(seed)
        train = self._distil(folder, "early", method, (domain,), seed, "{rate:opd}")
        test = self._measure(f"{group}/{domain}/{seed}/test", str(folder / "student"), "test", (domain,))
        seconds = COSTS.start + self.mode.steps * PER_DOMAIN * COSTS.rollout
        seconds += self._test_seconds(1, self.mode.test_prompts)
        name, needs = f"{group}/{domain}/{seed}", self._choice("opd")
        return Run(
            name=name, commands=(train, test), seconds=seconds, needs=needs, group=group, domains=(domain,), seed=seed
        )

    def _student(self, name: str, kind: str, method: Method, seed: int, rate: str, split: str, group: str = "") -> Run:
        """A student of both experts and its measurement."""
        folder = self.mode.work / name
        needs = [*self._experts_of(kind)]
        tuned = rate.removeprefix("{rate:").removesuffix("}") if rate.startswith("{") else None
        if method.how == "weights":
            train, seconds = self._merge_weights(folder, kind, method), COSTS.start / 2
        elif method.how in ("raw", "verified"):
            train, seconds = self._fine_tune(folder, kind, method, seed, rate), self._sft_seconds()
            needs.append(f"samples/{kind}/{seed}")
        else:
            train = self._distil(folder, kind, method, DOMAINS, seed, rate)
            seconds = COSTS.start + 2 * PER_DOMAIN * self.mode.steps * COSTS.rollout * self._scoring(kind)
        if tuned and method.how != "weights":
            needs += self._choice(tuned)
        prompts = self.mode.test_prompts if split == "test" else self.mode.val_prompts
        test = self._measure(f"{name}/test", str(folder / "student"), split, DOMAINS)
        seconds += self._test_seconds(len(DOMAINS), prompts)
        return Run(name=name, commands=(train, test), seconds=seconds, needs=tuple(needs), group=group, seed=seed)

    def _distil(self, folder: Path, kind: str, method: Method, domains: Sequence[str], seed: int, rate: str) -> Command:
        options = ("--model.reward_scale", f"{method.scale:g}", "--model.estimator", method.how)
        options += ("--model.teachers", self._teachers(kind, domains), "--model.optimizer.lr", rate)
        options += ("--data.train", sources("train", domains))
        options += ("--data.prompts_per_step", str(PER_DOMAIN * len(domains)))
        options += ("--trainer.max_steps", str(self.mode.steps), *self._reference(kind, method.corrected))
        return gopd_fit(folder, (MERGE, "study/lean.yaml"), seed, options)

    def _fine_tune(self, folder: Path, kind: str, method: Method, seed: int, rate: str) -> Command:
        rows = [{"path": str(self.mode.work / "samples" / kind / str(seed) / f"{method.how}.jsonl")}]
        options = ("--data.train", json.dumps(rows), "--model.optimizer.lr", rate)
        options += ("--trainer.max_steps", str(self.mode.steps))
        return gopd_fit(folder, ("study/sft.yaml",), seed, options)

    def _merge_weights(self, folder: Path, kind: str, method: Method) -> Command:
        words = (*GOPD, "merge", *(self.expert(kind, domain) for domain in DOMAINS), "--base", self.base(kind))
        words += ("--scale", f"{method.scale:g}", "--out", str(folder / "student"))
        return Command(words=words, result=folder / "student" / "model.safetensors")

    # Parts of commands

    def expert(self, kind: str, domain: str) -> str:
        """Folder of an expert."""
        experts = self.mode.experts[kind]
        if experts.rate is None:
            return f"assets/nano/{domain}-expert"
        return str(self.mode.work / "experts" / kind / domain / ("chosen" if experts.like else "student"))

    def base(self, kind: str) -> str:
        """Folder of the model that experts came from."""
        return str(self.mode.work / "larger" / "base" / "student") if self.mode.experts[kind].larger else BASE

    def _teachers(self, kind: str, domains: Sequence[str]) -> str:
        return json.dumps([{"domain": domain, "path": self.expert(kind, domain)} for domain in domains])

    def _reference(self, kind: str, corrected: bool) -> tuple[str, ...]:
        return ("--model.reference", json.dumps({"path": self.base(kind)})) if corrected else ()

    def _experts_of(self, kind: str) -> tuple[str, ...]:
        made = self.mode.experts[kind].rate is not None
        return tuple(f"experts/{kind}/{domain}" for domain in DOMAINS) if made else ()

    def _choice(self, method: str) -> tuple[str, ...]:
        values = self.mode.grids[method]
        return tuple(f"grid/{method}/{value:g}" for value in values) if len(values) > 1 else ()

    def _measure(self, name: str, model: str, split: str, domains: Sequence[str]) -> Command:
        folder = self.mode.work / name
        limit = self.mode.test_prompts if split == "test" else self.mode.val_prompts
        words = gopd_test("study/both_ways.yaml", model, json.loads(sources(split, domains, limit)), folder, 0)
        return Command(words=words, result=folder / "greedy-*" / "summary.json")

    # Planned seconds

    def _test_seconds(self, domains: int, prompts: int) -> float:
        return COSTS.start + domains * prompts * (SAMPLES + 1) * COSTS.sample

    def _sft_seconds(self) -> float:
        return COSTS.start + 2 * PER_DOMAIN * self.mode.steps * COSTS.given

    def _scoring(self, kind: str) -> float:
        """A larger teacher scores for longer; the student, which samples and learns, is the small one."""
        return 1.2 if self.mode.experts[kind].larger else 1.0


def _slower(experts: Experts) -> float:
    return COSTS.larger if experts.larger else 1.0
