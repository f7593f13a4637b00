"""Where and how a job runs."""

from dataclasses import dataclass
from typing import Literal

from igrpo_jax.config import Config, SamplingConfig
from igrpo_jax.edges.preemption import GRACE

ALONE = ("evaluate", "sample", "grade", "report")
"""Jobs that need no config file."""

WITHOUT = Config(sampling=SamplingConfig(rows=16))
"""The config of a job that is given none."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """Where and how to run; what to run is in the config."""

    config: str = ""
    """Path of a config file with `get_config()`; a bare name is sought in configs/ too. Evaluate, sample, grade and
    report do without one; 16 completions are decoded at once then, see --sampling.rows."""
    mesh: str = ""
    """Device mesh fsdp x tensor, like 8x1 or fsdp=8,tensor=1, or data x fsdp x tensor. Default: all devices on fsdp."""
    workdir: tuple[str, ...] = ()
    """Directory of the run; a run found there is resumed, or refused if it is another one. Default: runs/<config>,
    or runs/<job> without a config. A report takes several, or a study's."""
    job: Literal["train", "evaluate", "sample", "grade", "plan", "export", "report", "compare"] = "train"
    """train; evaluate the newest checkpoint (or the initial model); sample: show how it answers --question; grade
    --generations once more; plan: what the run takes, compiled for --topology; export the checkpoint for transformers;
    report: runs as a page, report/report.html in the workdir; compare: run the arms of a study (docs/studies.md)."""
    question: tuple[str, ...] = ()
    """Questions for --job sample."""
    questions: str = ""
    """More of them: a file with one a line, or a source of problems as in data.eval; - is standard input, which is
    also read where no question is given."""
    generations: str = ""
    """File of generations, for --job grade: from an evaluation's workdir, or a run's samples.jsonl."""
    topology: str = "local"
    """Devices to plan for, there or not: v5p:2x2x2, a100-80gb:8, h100:8, or local."""
    cpu_devices: int = 0
    """Simulate this many devices on the CPU, in each process."""
    coordinator: str = ""
    """host:port of process 0, for several processes; auto has JAX find it (Kubernetes). Default: what Slurm, Open MPI
    or a TPU pod say."""
    process_id: int | None = None
    """This process, from 0; with --coordinator."""
    num_processes: int | None = None
    """How many processes there are; with --coordinator."""
    grace: float = GRACE
    """Seconds within which training saves what is completed and leaves after SIGTERM or SIGINT, with exit status 75."""
    arms: tuple[str, ...] = ()
    """compare: only these arms of the study, and the one they are compared with."""
    seeds: tuple[int, ...] | None = None
    """compare: these seeds in place of the study's."""
    parallel: int = 1
    """compare: so many runs at once, each with its share of the NVIDIA GPUs."""
    track: Literal["none", "trackio", "wandb", "mlflow"] = "none"
    """Where training sends its metrics besides metrics.jsonl and TensorBoard; each is an extra to install
    (docs/trackers.md)."""
    max_hours: float = 0
    """Save and leave, with exit status 75, before so many hours have passed; 0 is never."""
    out: str = ""
    """Directory that a report is written to. Default: report in the workdir, runs/report for several."""
    watch: bool = False
    """Write the report anew every minute while a run goes on."""
    gpu_hour_price: float = 0
    """What one device costs an hour, in any money; the report then says what the runs have cost."""
