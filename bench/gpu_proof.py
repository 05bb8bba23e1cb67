"""Measure one GPU with this project: speed, memory, exactness, noise, and the cost of safety, in ten minutes.

python -m bench.gpu_proof                   on a machine with a GPU; needs Python, NumPy and torch, no network
python -m bench.gpu_proof --device cpu      the same on the CPU, short: a test of this program

Programs are trained, scored and audited in separate processes by the launcher, scorer, auditor and judge of the
locked evaluation, on synthetic text. Where a Docker engine and the base image are at hand, one trial runs in
containers as well. The result is printed and written to `docs/gpu/<card>.json`.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

try:
    import tomllib
except ImportError:
    sys.exit("error: Python 3.11 or newer is needed\n  → python3.12 -m bench.gpu_proof")
try:
    import numpy as np
    import torch
except ImportError as error:
    sys.exit(f"error: {error}\n  → pip install torch numpy")

from bench.gpu_bare import ROOT, Bare, ProofError, Ran
from bench.gpu_machine import choose_card, machine, scrub, sizes_of
from locked_eval.judging import draw, estimate, findings, judge, plan, verify

BUDGET_SECONDS = 580.0
NIGHT_SECONDS = 300.0  # a training on a GPU: shares are of this
TRAIN_SECONDS = 100.0
SHORT_SECONDS = 20.0
NUM_ROWS = 2048
NUM_SEEDS = 5
MAIN_CACHES = "main"  # kernels that the main training compiles; it starts without any
WARM_SHARE = 0.4  # of the time that compiling took: what it takes again with its kernels kept, at most
LAYERS = re.compile(r"^((?:NUM_)?(?:LAYERS|DEPTH)) = (\d+)", re.MULTILINE)


@dataclass(kw_only=True)
class Proof:
    """Facts found so far, and the time that is left."""

    bare: Bare
    device: str
    profile: dict[str, object]  # settings of runner/profiles/
    seconds: float  # of the main training
    short_seconds: float
    num_seeds: int
    facts: dict[str, object] = field(default_factory=dict)

    @property
    def left(self) -> float:
        """Seconds until the budget is used up."""
        return self.bare.give_up - time.monotonic()

    @property
    def compile_seconds(self) -> float:
        """Time until the first step of the main training, when nothing was compiled yet."""
        training = self.facts.get("training")
        found = training.get("first_step_seconds") if isinstance(training, dict) else None
        return float(found or 0.0) if self.device == "cuda" else 0.0

    def step(self, name: str, action) -> None:
        """Run one part; a part that fails leaves its reason, and the others go on."""
        print(f"{name} … ({self.left:.0f} s left)", file=sys.stderr, flush=True)
        try:
            self.facts[name] = action()
        except (ProofError, OSError, ValueError, RuntimeError, subprocess.SubprocessError) as error:
            self.facts[name] = {"failed": str(error)}

    def training(self) -> dict[str, object]:
        """One training that starts without any compiled kernel."""
        bare, out = self.bare, self.bare.folder / "out"
        ran = bare.train(bare.program("baseline"), out, seed=1, seconds=self.seconds, caches=MAIN_CACHES)
        facts = training_facts(ran, self.seconds)
        if not (out / "checkpoint").is_file():
            lines = ran.output.decode("utf-8", "replace").splitlines()[-12:]
            raise ProofError("the training published nothing; its log ends:\n" + "\n".join(lines))
        return {**facts, "checkpoint_mib": round((out / "checkpoint").stat().st_size / 2**20, 1)}

    def evaluation(self) -> dict[str, object]:
        """Score and audit its checkpoint, each twice: equal bits, honest noise, and their time."""
        bare, rows = self.bare, self.bare.folder / "rows"
        program, out = bare.program("baseline"), bare.folder / "out"
        val_rows = np.load(rows / "rows.npy")
        targets, token_bytes = val_rows[:, 1:], self.bare.token_bytes()
        one_batch = Path(tempfile.mkdtemp(dir=bare.folder))
        np.save(one_batch / "rows.npy", val_rows[: bare.sizes.batch_rows])
        fixed = bare.answer("score", program, out, one_batch).seconds  # mostly loading
        scored = [bare.answer("score", program, out, rows) for _ in range(2)]
        claims = np.frombuffer(scored[0].output, "<f4").reshape(targets.shape)
        score = judge.score(scored[0].output, targets, token_bytes)
        if isinstance(score, judge.Rejection):
            raise ProofError(f"the judge rejects the claims: {score.reason}")
        counted = token_bytes[targets] > 0
        drawn = draw.draw(claims, None, counted, len(val_rows))
        made = plan.make_plan(val_rows, bare.train_text(), drawn, bare.sizes.batch_rows)
        audits = [self.audit(program, out, made) for _ in range(2)]
        logits = np.frombuffer(audits[0][1], "<f4").reshape(made.num_logits, bare.sizes.vocab_size)
        noise = findings.HonestNoise(
            exceedance_rates=tuple(self.profile["honest_exceedances"]),
            dependence=self.profile["honest_dependence"],
        )
        committed = verify.Committed(claims=claims, targets=targets, counted=counted)
        found = verify.verify(made, drawn, logits, committed, noise)
        rates = [count / found.num_positions for count in found.exceedances]
        share = len(val_rows) / int(self.profile["max_eval_rows"])
        seconds = {"score": scored[0].seconds, "audit": audits[0][0]}
        whole = {
            "score": fixed + max(0.0, seconds["score"] - fixed) / share,
            "audit": 2 * fixed + max(0.0, seconds["audit"] - 2 * fixed) / share,  # two processes
        }
        return {
            "claimed_bpb": round(score.val_bpb, 5),
            "audited_bpb": round(verify.audited_bpb(score, found), 5),
            "findings": [one.sentence for one in found.findings],
            "rows": len(val_rows),
            "score_again_equal_bits": scored[0].output == scored[1].output,
            "audit_again_equal_bits": audits[0][1] == audits[1][1],
            "repeat": found.repeat,
            "suffix": found.suffix,
            "neighbors": found.neighbors,
            "honest_dependence": max(one or 0.0 for one in (found.repeat, found.suffix, found.neighbors)),
            "honest_exceedances": rates,
            "exceedance_thresholds_nats": list(estimate.EXCEEDANCE_NATS),
            "overstatement_nats": found.mean_nats,
            **{f"{name}_seconds": round(value, 2) for name, value in seconds.items()},
            "load_and_one_batch_seconds": round(fixed, 2),
            **{f"{name}_share_of_300s": round(value / NIGHT_SECONDS, 4) for name, value in whole.items()},
            "filtered": all(one.filtered for one in scored),
        }

    def audit(self, program: Path, out: Path, made: plan.Plan) -> tuple[float, bytes]:
        """Ask both parts of a plan, each in a process of its own; seconds and the joined answers."""
        seconds, answers = 0.0, b""
        for part in made.parts():
            folder = Path(tempfile.mkdtemp(dir=self.bare.folder))
            plan.write(part, folder)
            ran = self.bare.answer("audit", program, out, folder)
            seconds, answers = seconds + ran.seconds, answers + ran.output
        return seconds, answers

    def seeds(self) -> dict[str, object]:
        """Short runs of two programs with the same seeds, as many as there is time for."""
        programs, problem = {"baseline": self.bare.program("baseline")}, "one layer fewer"
        sizes = f"workload/sizes/{self.bare.sizes.profile}.py"
        if LAYERS.search((ROOT / sizes).read_text("utf-8")):
            programs["variant"] = self.bare.program("variant", fewer_layers)
        else:
            problem = f"none: {sizes} names no number of layers"
        scores: dict[str, list[float]] = {"baseline": [], "variant": []}
        order = [("baseline", seed) for seed in range(3)]
        order += [(name, seed) for seed in range(self.num_seeds) for name in programs]
        seconds = self.short_seconds + WARM_SHARE * self.compile_seconds
        took = seconds
        for name, seed in dict.fromkeys(order):
            warm_up = self.compile_seconds * 1.5 if name == "variant" and not scores[name] else 0.0
            if took * 1.1 + warm_up + 10 > self.left:
                break
            began = time.monotonic()
            try:
                if warm_up:
                    self.short_run(programs[name], seed, warm_up)
                    began = time.monotonic()
                scores[name].append(self.short_score(programs[name], seed, seconds))
            except ProofError as error:
                if name == "baseline":
                    raise
                problem = f"one layer fewer does not work: {error}"
                break
            took = max(took, time.monotonic() - began)
        pairs = list(zip(scores["baseline"], scores["variant"], strict=False))
        return {
            "train_seconds": round(seconds, 1),
            "kernels": "compiled before, and kept",
            "baseline_bpb": [round(one, 5) for one in scores["baseline"]],
            "variant": problem,
            "variant_bpb": [round(one, 5) for one in scores["variant"]],
            "sigma_bpb": spread(scores["baseline"]),
            "sigma_difference_bpb": spread([one - other for one, other in pairs]),
            "seed_correlation": correlation(pairs),
            "pairs": len(pairs),
        }

    def short_run(self, program: Path, seed: int, seconds: float) -> Path:
        """Train for a short time with kernels that are kept; returns the folder of the checkpoint."""
        out = self.bare.folder / "short"
        caches = MAIN_CACHES if program.name == "baseline" else program.name
        self.bare.train(program, out, seed=seed + 10, seconds=seconds, caches=caches)
        return out

    def short_score(self, program: Path, seed: int, seconds: float) -> float:
        """Train for a short time, and score."""
        out = self.short_run(program, seed, seconds)
        rows = np.load(self.bare.folder / "rows" / "rows.npy")
        claims = self.bare.answer("score", program, out, self.bare.folder / "rows").output
        score = judge.score(claims, rows[:, 1:], self.bare.token_bytes())
        if isinstance(score, judge.Rejection):
            raise ProofError(f"the judge rejects the claims: {score.reason}")
        return score.val_bpb


def fewer_layers(path: str, text: str) -> str:
    """The variant: one layer fewer, in every size."""
    if not path.startswith("workload/sizes/"):
        return text
    return LAYERS.sub(lambda found: f"{found[1]} = {max(1, int(found[2]) - 1)}", text)


def spread(values: list[float]) -> float | None:
    """Standard deviation; None for fewer than three."""
    return float(f"{np.std(values, ddof=1):.3g}") if len(values) >= 3 else None


def correlation(pairs: list[tuple[float, float]]) -> dict[str, float] | None:
    """Pearson's, with its 90% interval by Fisher's transformation; None for fewer than four pairs."""
    if len(pairs) < 4 or np.std(pairs, axis=0).min() == 0:
        return None
    r = float(np.corrcoef(np.array(pairs).T)[0, 1])
    center, half = math.atanh(max(-0.999999, min(0.999999, r))), 1.645 / math.sqrt(len(pairs) - 3)
    return {name: round(math.tanh(z), 3) for name, z in
            (("r", center), ("low", center - half), ("high", center + half))}  # fmt: skip


def training_facts(ran: Ran, seconds: float) -> dict[str, object]:
    """Figures that the program printed, and how it ended."""
    log = ran.output.decode("utf-8", "replace")

    def last(pattern: str) -> float | None:
        found = re.findall(pattern, log)
        return float(found[-1]) if found else None

    first = re.search(r"^step 1 .*elapsed ([\d.]+)", log, re.MULTILINE)
    return {
        "train_seconds": seconds,
        "ended": "killed at the deadline" if ran.exit_code is None else f"exit code {ran.exit_code}",
        "startup_seconds": round(ran.startup_seconds, 2),
        "first_step_seconds": float(first[1]) if first else None,  # compiling included
        "tokens_per_second": last(r"tokens/s ([\d.]+)"),
        "mfu_percent": last(r"mfu ([\d.]+) %"),
        "peak_memory_gib": last(r"peak memory ([\d.]+) GiB"),
        "steps": last(r"^done: .*?steps (\d+)") or last(r"step (\d+)"),
        "filtered": ran.filtered,
    }


def table(facts: dict[str, object], prefix: str = "") -> list[str]:
    """The facts as lines of a Markdown table."""
    lines = []
    for name, value in facts.items():
        label = f"{prefix}{name}".replace("_", " ")
        if isinstance(value, dict):
            lines += table(value, f"{label}: ")
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            lines.append(
                f"| {label} | {'–' if shown is None else str(shown).splitlines()[0] if shown != '' else ''} |"
            )
    return lines


def main() -> int:
    """Measure, print, write; returns 0 when every part succeeded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--seconds", type=float, default=TRAIN_SECONDS, help="of the main training")
    parser.add_argument(
        "--short-seconds", type=float, default=SHORT_SECONDS, help="of the trainings for the noise"
    )
    parser.add_argument("--seeds", type=int, default=NUM_SEEDS, help="of two programs")
    parser.add_argument("--rows", type=int, default=NUM_ROWS, help="that are scored")
    parser.add_argument("--budget", type=float, default=BUDGET_SECONDS, help="seconds for everything")
    parser.add_argument("--no-docker", action="store_true", help="without a trial in containers")
    parser.add_argument(
        "--out", type=Path, help="file for the result (default: docs/gpu/<card>.json; none on the CPU)"
    )
    options = parser.parse_args()
    began = time.monotonic()
    if options.device == "cuda":
        choose_card()
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("error: torch sees no GPU\n  → nvidia-smi; python -c 'import torch; print(torch.version.cuda)'")
    device = options.device
    here = machine(device)
    profile = tomllib.loads((ROOT / "runner" / "profiles" / f"{device}.toml").read_text("utf-8"))
    sizes = sizes_of(device, here, profile, options.rows, 8 if device == "cuda" else 1)
    with tempfile.TemporaryDirectory(prefix="gpu-proof-") as folder:
        bare = Bare(
            folder=Path(folder),
            sizes=sizes,
            packages=Path(torch.__file__).parents[1],
            on_cpu=device == "cpu",
            give_up=began + options.budget,
        )
        proof = Proof(
            bare=bare,
            device=device,
            profile=profile,
            seconds=options.seconds,
            short_seconds=options.short_seconds,
            num_seeds=options.seeds,
            facts={"machine": {**here, "sizes": sizes.profile}},
        )
        try:
            bare.prepare(32_000_000 if device == "cuda" else 1_000_000)
            if device == "cuda":
                proof.step("scrub", scrub)
            proof.step("training", proof.training)
            proof.step("evaluation", proof.evaluation)
            if not options.no_docker:
                proof.step("containers", lambda: in_containers(proof))
            proof.step("seeds", proof.seeds)
        finally:
            bare.close()
    proof.facts["seconds"] = round(time.monotonic() - began, 1)
    return finish(proof.facts, options.out, device)


def in_containers(proof: Proof) -> dict[str, object]:
    """One trial through the sandbox, where there is an engine with the base image."""
    try:
        from bench.gpu_docker import one_trial
    except ImportError as error:
        return {"not_run": f"the project's packages are not installed here ({error})"}
    return one_trial(proof)


def finish(facts: dict[str, object], out: Path | None, device: str) -> int:
    """Print the table and write the result."""
    print("| what | measured |\n| --- | --- |")
    print("\n".join(table(facts)))
    if out is None and device == "cuda":
        name = re.sub(r"[^a-z0-9]+", "-", str(facts["machine"]["card"]).lower()).strip("-")
        out = ROOT / "docs" / "gpu" / f"{name}.json"
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
        print(f"wrote {out}", file=sys.stderr)
    failed = [name for name, value in facts.items() if isinstance(value, dict) and "failed" in value]
    for name in failed:
        print(f"error: {name}: {facts[name]['failed']}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
