"""What a rollout says about itself, under the field's names."""

from collections.abc import Sequence

import numpy as np

from igrpo_jax.rollout import Rollout, Stage


def stage_metrics(stage: Stage) -> dict[str, float]:
    """Reward, spread, lengths and verdicts of one stage; TRL's names.

    `reward_std` is the mean over groups of the population's standard deviation, by which advantages are divided; TRL's
    is the sample's.
    """
    lengths, rewards = stage.samples.lengths, stage.rewards
    if not len(rewards):
        return {}
    metrics = {
        "reward": rewards.mean(),
        "reward_std": rewards.std(axis=1).mean(),
        "frac_reward_zero_std": (rewards == rewards[:, :1]).all(axis=1).mean(),
        "completions/mean_length": lengths.mean(),
        "completions/max_length": lengths.max(),
        "completions/clipped_ratio": 1 - stage.samples.ended.mean(),
    }
    for name, values in stage.scores.each.items():
        metrics[f"rewards/{name}/mean"] = np.nanmean(values) if np.isfinite(values).any() else np.nan
    return {name: float(value) for name, value in metrics.items()}


def rollout_metrics(rollout: Rollout) -> dict[str, float]:
    """The trained stage's metrics unprefixed, the drafts' under `draft/`, and what refining did under `refine/`.

    Earlier rounds of refinements are under `round_1/` and so on. Where problems are left out because others are more
    worth training on, all that was sampled counts: what is trained on alone would say more of the choice than of the
    policy. `draft/skipped` is the share of problems that were not refined, `sampling/extra_problems` how many were
    drawn beyond those of the step, `sampling/missing_problems` how many it has too few all the same, and
    `sampling/extra_tokens` what was sampled of problems that are not trained on. `draft/replayed` is the share of
    the last round's prompts, of all that was sampled, with a draft of an earlier step.

    `Scores.right` says which completions are right; `refine/fixed` is the share of right
    refinements of wrong drafts, `refine/broken` of wrong ones of right drafts (NaN-free: absent without such drafts).
    `num_tokens` are the tokens of this step's `num_completions`; TRL's are all tokens since the beginning.
    """
    stages = rollout.stages if rollout.sampled is None else rollout.sampled
    metrics, first, last = stage_metrics(stages[-1]), stages[0], stages[-1]
    if len(stages) > 1:
        metrics |= {f"draft/{name}": value for name, value in stage_metrics(first).items()}
        metrics["draft/reward_best"] = float(first.rewards.max(axis=1).mean())
        metrics["draft/all_wrong"] = float(1 - _right(first).any(axis=1).mean())
        for number, stage in enumerate(stages[1:-1], start=1):
            metrics |= {f"round_{number}/{name}": value for name, value in stage_metrics(stage).items()}
        if last.drafts and all(last.drafts):
            metrics |= _refine_metrics(last)
        if rollout.sampled is not None:
            metrics["draft/skipped"] = 1 - len(last.rewards) / len(first.rewards)
    if rollout.sampled is not None:
        metrics["sampling/extra_problems"] = float(len(first.rewards) - len(rollout.problems) - rollout.missing)
        metrics["sampling/missing_problems"] = float(rollout.missing)
        metrics["sampling/extra_tokens"] = _tokens(stages) - _tokens(rollout.stages)
    if rollout.past is not None and last.drafts:
        metrics["draft/replayed"] = float(np.mean([bool(draft and draft.step) for draft in last.drafts]))
    metrics["num_tokens"] = _tokens(stages)
    metrics["num_completions"] = float(sum(stage.samples.lengths.size for stage in stages))
    metrics["sampling/row_utilization"] = rollout.usage.tokens / max(rollout.usage.row_steps, 1)
    metrics["reward/timeouts"] = float(sum(s.scores.timeouts.sum() for s in stages))
    metrics["reward/errors"] = float(sum(s.scores.errors.sum() for s in stages))
    for name in rollout.refinements.scores.counts:
        metrics[name] = float(sum(s.scores.counts[name].sum() for s in stages))
    return metrics


def _tokens(stages: Sequence[Stage]) -> float:
    return float(sum(stage.samples.lengths.sum() for stage in stages))


def _right(stage: Stage) -> np.ndarray:
    return stage.scores.right()[1].reshape(stage.rewards.shape)


def _refine_metrics(refinements: Stage) -> dict[str, float]:
    drafts = [draft for draft in refinements.drafts if draft]
    draft_right = np.array([draft.right for draft in drafts])
    draft_rewards = np.array([draft.reward for draft in drafts], np.float32)
    right = _right(refinements)
    flat = (refinements.rewards == refinements.rewards[:, :1]).all(axis=1)
    metrics = {
        "refine/gain": (refinements.rewards.mean(axis=1) - draft_rewards).mean(),
        "refine/copied": refinements.copied.mean() / refinements.rewards.shape[1],
        "refine/zero_std_right": (flat & draft_right).mean(),
        "refine/zero_std_wrong": (flat & ~draft_right).mean(),
    }
    if not draft_right.all():
        metrics["refine/fixed"] = right[~draft_right].mean()
    if draft_right.any():
        metrics["refine/broken"] = 1 - right[draft_right].mean()
    return {name: float(value) for name, value in metrics.items()}
