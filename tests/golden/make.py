"""Writes the golden files of this directory with transformers and torch, which nothing else here needs.

    python tests/golden/make.py families          # tiny random models of every family and their logits
    python tests/golden/make.py smollm2 DIRECTORY # greedy answers of the converted embedded model

Made with transformers 5.23 and torch 2.13 on CPU.
"""

import copy
import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers

HERE = Path(__file__).parent
SAMPLES, COMPLETION = 2, 8
SIZES = {
    "vocab_size": 56,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "attn_implementation": "eager",
}
SCALED = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
FAMILIES = {
    "llama_tied": {"model_type": "llama", "tie_word_embeddings": True, "rms_norm_eps": 1e-5},
    "llama3_scaled": {"model_type": "llama", "rope_parameters": SCALED},
    "qwen2": {"model_type": "qwen2", "num_key_value_heads": 1, "tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3", "head_dim": 12},
    "mistral": {"model_type": "mistral", "sliding_window": None, "num_key_value_heads": 4},
}
PROMPTS = {"llama3_scaled": (5, 23, 40)}
QUESTIONS = (
    "What is the capital of France?",
    "What is 2 + 3?",
    "What is the opposite of hot?",
    "List the months of the year.",
)


def family(name: str, fields: dict, seed: int) -> None:
    """One tiny model with random weights of order 1 everywhere, and the logits behind every completion token."""
    torch.manual_seed(seed)
    config = transformers.AutoConfig.for_model(**SIZES | fields)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for parameter, value in model.named_parameters():
        noise = torch.randn_like(value)
        if parameter.endswith("norm.weight"):
            value.data = 1 + 0.3 * noise
        elif parameter.endswith("bias"):
            value.data = 0.5 * noise
        else:
            value.data = 1.5 * noise * value.shape[-1] ** -0.5
        if name == "mistral":
            value.data = value.data.bfloat16().float()
    folder = HERE / name
    # Of one family several files and an index.
    stored = copy.deepcopy(model).to(torch.bfloat16) if name == "mistral" else model
    stored.save_pretrained(folder, max_shard_size="40KB" if name == "qwen3" else "5GB")
    (folder / "generation_config.json").unlink(missing_ok=True)

    lengths = np.array(PROMPTS.get(name, (3, 9, 14)), np.int32)
    prompts = torch.randint(0, config.vocab_size, (3, int(lengths.max())))
    completions = torch.randint(0, config.vocab_size, (3, SAMPLES, COMPLETION))
    logits = np.zeros((3, SAMPLES, COMPLETION + 1, config.vocab_size), np.float32)
    for p, g in np.ndindex(3, SAMPLES):
        row = torch.cat([prompts[p, : lengths[p]], completions[p, g]])[None]
        with torch.no_grad():
            logits[p, g] = model(row).logits[0, lengths[p] - 1 :].numpy()
    print(name, "logits std", logits.std())
    np.savez(
        folder / "expected.npz",
        prompts=prompts.numpy().astype(np.int32),
        lengths=lengths,
        completions=completions.numpy().astype(np.int32),
        logits=logits,
    )


def smollm2(directory: Path) -> None:
    """Greedy answers, none of whose tokens another one came close to (in nats)."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    rows = []
    for question in QUESTIONS:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
        )
        prompt = tokenizer.encode(text, add_special_tokens=False)
        made = model.generate(
            torch.tensor([prompt]),
            max_new_tokens=28,
            do_sample=False,
            output_scores=True,
            return_dict_in_generate=True,
        )
        answer = made.sequences[0, len(prompt) :].tolist()
        best = [score[0].topk(2).values.tolist() for score in made.scores]
        margin = min(first - second for first, second in best)
        rows.append({"question": question, "prompt": prompt, "answer": answer, "text": tokenizer.decode(answer)})
        print(rows[-1]["text"], "margin", margin)
        assert margin > 0.05, "too close to a tie to compare token by token; choose another question"
    lines = ",\n".join(json.dumps(row) for row in rows)
    (HERE / "smollm2.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    if sys.argv[1:] == ["families"]:
        for seed, (name, fields) in enumerate(FAMILIES.items()):
            family(name, fields, seed)
    elif len(sys.argv) == 3 and sys.argv[1] == "smollm2":
        smollm2(Path(sys.argv[2]))
    else:
        sys.exit(__doc__)
