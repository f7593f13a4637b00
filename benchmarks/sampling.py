"""Sampling side by side: ours, transformers' `generate` and Tunix's sampler; and what top_p costs us.

    make bench BENCHMARKS=benchmarks/sampling.py
    PYTHONPATH=. python benchmarks/sampling.py --peers none --prompts 64 --rounds 5

Temperature 1, no truncation, nothing stops early. All processes stay loaded, runs alternate, medians are shown, and one
JSON line ends the output. Ratios are to the first line of each table; `of ceiling` is the least time at the rates of
roofline.py over the time taken; `greedy` is how many tokens of the greedy continuation of one prompt agree with ours.
"""

import json

from benchmarks.contest import OURS, Contest, Contestant, arguments, at_best, machine, prepared, show, summary, wanted


def main() -> None:
    """One contest a prompt length."""
    parser = arguments(__doc__)
    parser.add_argument("--prompts", default="64,512", help="prompt lengths in tokens, with commas")
    parser.add_argument("--top-p", type=float, default=0.95, help="of our second contestant")
    options = parser.parse_args()
    lengths = [int(length) for length in options.prompts.split(",")]
    contests = {}
    with prepared(options, lengths) as (shared, logs):
        for length in lengths:
            job = shared | {"task": "sample", "prompt": length, "top_p": 1.0}
            contestants = [
                Contestant(OURS, "ours", None, job),
                Contestant(f"ours top_p {options.top_p}", "ours", None, job | {"top_p": options.top_p}),
                Contestant("transformers", "peer_torch", "torch", job),
                Contestant("tunix", "peer_tunix", "tunix", job),
            ]
            name = f"{options.problems} x {options.samples} completions, {length} + {options.new} tokens"
            print(name, flush=True)
            best = at_best(shared, [[options.problems, options.samples, length, options.new]], logs)[0]["sample_s"]
            contest = Contest(wanted(contestants, options), resident=True, logs=logs)
            contests[name] = summary(contest.run(options.rounds), {who.name: best for who in contestants})
            show(name, contests[name])
    print(json.dumps({"benchmark": "sampling", **machine(options.threads), **vars(options), "contests": contests}))


if __name__ == "__main__":
    main()
