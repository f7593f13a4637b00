"""Whole training steps side by side: ours, TRL's and Tunix's GRPO; and our iGRPO against our GRPO.

    make bench BENCHMARKS=benchmarks/step.py
    PYTHONPATH=. python benchmarks/step.py --peers none --against ../older-checkout
    PYTHONPATH=. python benchmarks/step.py --peers none --model random:qwen2.5-1.5b --problems 32 --prompt 512 --new 512

A step samples `problems x samples` completions, rewards them and takes one optimizer step (beta 0, one iteration).
iGRPO draws half of them as drafts and trains on the rest, under a prompt of prompt + draft + 16 tokens, in as many
micro-batches as GRPO. Every run has its own process, one at a time: load, a warm-up step, the timed step. Medians, the
least time at roofline.py's rates over them, the largest peak of memory, and one JSON line at the end.

With --dtype bfloat16 ours and TRL compute in bfloat16 and keep float32 weights and moments; TRL casts the weights anew
for every token that it draws. Tunix knows one dtype only: its weights and moments are bfloat16, half the bytes.
"""

import json

from benchmarks.contest import (
    BESIDE_DRAFT,
    OURS,
    Contest,
    Contestant,
    arguments,
    at_best,
    machine,
    prepared,
    show,
    summary,
    wanted,
)

IGRPO = "ours iGRPO"


def main() -> None:
    """One contest."""
    parser = arguments(__doc__)
    parser.add_argument("--prompt", type=int, default=64, help="tokens of a prompt")
    parser.add_argument("--micro-batch", type=int, default=32, help="of our GRPO; iGRPO's has half the rows")
    parser.add_argument("--remat", default="dots", choices=("full", "dots", "none"), help="ours only")
    parser.add_argument("--rows", type=int, default=0, help="that a device of ours decodes at once; 0 for all")
    options = parser.parse_args()
    with prepared(options, [options.prompt]) as (shared, logs):
        job = shared | {"task": "step", "prompt": options.prompt}
        drafts = options.samples // 2
        own = job | {"remat": options.remat, "rows": options.rows, "drafts": 0, "micro_batch": options.micro_batch}
        half = own | {"drafts": drafts, "micro_batch": options.micro_batch - options.micro_batch // 2}
        contestants = [
            Contestant(OURS, "ours", None, own),
            Contestant(IGRPO, "ours", None, half),
            Contestant("trl", "peer_torch", "torch", job | {"checkpointing": False}),
            Contestant("trl checkpointing", "peer_torch", "torch", job | {"checkpointing": True}),
            Contestant("tunix", "peer_tunix", "tunix", job),
        ]
        contestants = wanted(contestants, options)
        p, prompt, new, rows = options.problems, options.prompt, options.new, options.rows
        behind = prompt + new + BESIDE_DRAFT
        groups = (options.samples, prompt), (drafts, prompt), (options.samples - drafts, behind)
        stages = [[p, group, length, new, rows] for group, length in groups]
        grpo, draft, refine = at_best(shared, stages, logs)
        ours, half = grpo["sample_s"] + grpo["update_s"], draft["sample_s"] + refine["sample_s"] + refine["update_s"]
        least = {who.name: half if who.name.startswith(IGRPO) else ours for who in contestants}
        contest = Contest(contestants, resident=False, logs=logs)
        entries = summary(contest.run(options.rounds), least)
    name = f"a step of {options.problems} x {options.samples} completions, {options.prompt} + {options.new} tokens"
    show(name, entries)
    if options.dtype == "bfloat16" and "tunix" in entries:
        print("tunix keeps bfloat16 weights and moments, the others float32 ones\n", flush=True)
    print(json.dumps({"benchmark": "step", **machine(options.threads), **vars(options), "contestants": entries}))


if __name__ == "__main__":
    main()
