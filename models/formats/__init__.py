"""Translation from and to files: Hugging Face directories, GGUF, tokenizers."""
