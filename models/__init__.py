"""Policies and their translation from and to Hugging Face's formats. Knows no mesh and no reinforcement learning."""
