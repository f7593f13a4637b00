"""Architectures by name: one for smoke tests, and real shapes for planning and benchmarks with random weights."""

from models.config import DecoderConfig

PRESETS: dict[str, DecoderConfig] = {
    # 259 byte-level ids, rounded up so that 8 devices divide every axis but the key/value heads.
    "tiny": DecoderConfig(
        family="llama",
        vocab_size=264,
        width=64,
        layers=2,
        heads=8,
        kv_heads=4,
        head_dim=16,
        mlp=128,
        rope_theta=10_000.0,
        max_position=4096,
        norm_eps=1e-6,
    ),
    "qwen2.5-0.5b": DecoderConfig(
        family="qwen2",
        vocab_size=151_936,
        width=896,
        layers=24,
        heads=14,
        kv_heads=2,
        head_dim=64,
        mlp=4864,
        rope_theta=1_000_000.0,
        max_position=32_768,
        norm_eps=1e-6,
        qkv_bias=True,
        tied=True,
    ),
    "qwen2.5-1.5b": DecoderConfig(
        family="qwen2",
        vocab_size=151_936,
        width=1536,
        layers=28,
        heads=12,
        kv_heads=2,
        head_dim=128,
        mlp=8960,
        rope_theta=1_000_000.0,
        max_position=32_768,
        norm_eps=1e-6,
        qkv_bias=True,
        tied=True,
    ),
    "qwen2-7b": DecoderConfig(
        family="qwen2",
        vocab_size=152_064,
        width=3584,
        layers=28,
        heads=28,
        kv_heads=4,
        head_dim=128,
        mlp=18_944,
        rope_theta=1_000_000.0,
        max_position=131_072,
        norm_eps=1e-6,
        qkv_bias=True,
    ),
    "qwen2-14b": DecoderConfig(
        family="qwen2",
        vocab_size=152_064,
        width=5120,
        layers=48,
        heads=40,
        kv_heads=8,
        head_dim=128,
        mlp=13_824,
        rope_theta=1_000_000.0,
        max_position=131_072,
        norm_eps=1e-5,
        qkv_bias=True,
    ),
}
"""What `random:<name>` builds. The `qwen2-*` shapes are also those of the reasoning models distilled from them."""

KNOWN = {
    "nvidia/OpenReasoning-Nemotron-7B": "qwen2-7b",
    "nvidia/OpenReasoning-Nemotron-14B": "qwen2-14b",
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": "qwen2-7b",
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B": "qwen2-14b",
    "Qwen/Qwen2.5-0.5B-Instruct": "qwen2.5-0.5b",
    "Qwen/Qwen2.5-1.5B-Instruct": "qwen2.5-1.5b",
}
"""Models of the hub whose shapes these are, so that a run of them can be planned without the hub."""
