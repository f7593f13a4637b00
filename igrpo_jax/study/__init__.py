"""Arms side by side over seeds at a matched budget, with intervals; see docs/studies.md."""
