"""Does refining one's own best draft teach more than GRPO, at equal sampled completions? (arXiv 2602.09000, section 4)

    python launch.py --job compare --config studies/igrpo_vs_grpo.py --mesh 8x1

DeepSeek-R1-Distill-Qwen-7B on MATH, the mean of six benchmarks, bare answers. The paper has one seed and no intervals;
this has three. About 94 A100-hours a run by the paper's count. Not yet run by us. A twin of minutes a run on two CPU
cores: `igrpo_vs_grpo_cpu.py`.
"""

from dataclasses import replace

from configs.math import get_config
from igrpo_jax.config import Config
from igrpo_jax.study.config import METRICS, Arm, Study

SIX = ("aime24", "aime25", "math500", "amc23", "gsm8k", "minerva")
SOURCE = "DeepSeek-R1-Distill-Qwen-7B trained on MATH, mean of six benchmarks, one seed (arXiv 2602.09000, section 4)"
GRPO = {"algorithm.num_drafts": 0, "algorithm.num_generations": 8}
BEFORE = {"eval/mean/avg@0%": 0.6782}


def base() -> Config:
    """What the paper's studies share: its 7B run, evaluated on six sets, one checkpoint kept, nothing exported."""
    config = get_config()
    return replace(
        config,
        data=replace(config.data, eval=SIX),
        train=replace(config.train, keep=1, export=False),
    )


def get_study() -> Study:
    """GRPO with 8 completions a problem, iGRPO with 4 + 4."""
    grpo = {"eval/mean/avg": 0.6829, "entropy@10%": 0.60, "entropy@30%": 0.42}
    igrpo = {"eval/mean/avg": 0.6987, "entropy@15%": 0.80, "entropy@30%": 0.48}
    return Study(
        title="GRPO and iGRPO at equal sampled completions",
        config=base(),
        arms={
            "grpo": Arm(label="GRPO", overrides=GRPO, paper=grpo | BEFORE),
            "igrpo": Arm(label="iGRPO", paper=igrpo | BEFORE),
        },
        baseline="grpo",
        metrics=(*METRICS, "eval/mean/avg@0%", "entropy@10%", "entropy@15%", "entropy@30%"),
        source=SOURCE,
    )
