"""Where users, files, texts and signals come in: what is refused, shown, run and obeyed."""
