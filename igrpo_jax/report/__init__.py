"""Runs as a page to look at: what they wrote down, read, drawn and laid out in one HTML file that needs no network."""
