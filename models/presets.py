"""Architectures by name: a tiny one for smoke tests, and those of real models for plans and benchmarks."""

from functools import partial

from models.config import DecoderConfig, RopeScaling

_qwen2 = partial(DecoderConfig, family="qwen2", rope_theta=1_000_000.0, qkv_bias=True)
_small = partial(_qwen2, vocab_size=151_936, max_position=32_768, norm_eps=1e-6, tied=True)
_large = partial(_qwen2, vocab_size=152_064, head_dim=128, max_position=131_072)

PRESETS: dict[str, DecoderConfig] = {
    # 259 byte-level ids, rounded up so that 8 devices divide every axis but the key/value heads.
    "tiny": DecoderConfig(
        family="llama", vocab_size=264, width=64, layers=2, heads=8, kv_heads=4, head_dim=16, mlp=128,
        rope_theta=10_000.0, max_position=4096, norm_eps=1e-6,
    ),
    "qwen2.5-0.5b": _small(width=896, layers=24, heads=14, kv_heads=2, head_dim=64, mlp=4864),
    "qwen2.5-1.5b": _small(width=1536, layers=28, heads=12, kv_heads=2, head_dim=128, mlp=8960),
    "qwen2-7b": _large(width=3584, layers=28, heads=28, kv_heads=4, mlp=18_944, norm_eps=1e-6),
    "qwen2-14b": _large(width=5120, layers=48, heads=40, kv_heads=8, mlp=13_824, norm_eps=1e-5),
    "qwen2-32b": _large(width=5120, layers=64, heads=40, kv_heads=8, mlp=27_648, norm_eps=1e-5),
    "llama3-70b": DecoderConfig(
        family="llama", vocab_size=128_256, width=8192, layers=80, heads=64, kv_heads=8, head_dim=128, mlp=28_672,
        rope_theta=500_000.0, max_position=131_072, norm_eps=1e-5,
        rope_scaling=RopeScaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position=8192),
    ),
}  # fmt: skip
"""What `--model.source random:<name>` builds with random weights.

The `qwen2-*` shapes are also those of the reasoning models that were distilled from them.
"""

KNOWN = {
    "nvidia/OpenReasoning-Nemotron-7B": "qwen2-7b",
    "nvidia/OpenReasoning-Nemotron-14B": "qwen2-14b",
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": "qwen2-7b",
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B": "qwen2-14b",
    "nvidia/OpenReasoning-Nemotron-32B": "qwen2-32b",
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B": "qwen2-32b",
    "deepseek-ai/DeepSeek-R1-Distill-Llama-70B": "llama3-70b",
    "Qwen/Qwen2.5-0.5B-Instruct": "qwen2.5-0.5b",
    "Qwen/Qwen2.5-1.5B-Instruct": "qwen2.5-1.5b",
}
"""Which preset has the shapes of which model of the hub, so that its run can be planned without the hub."""
