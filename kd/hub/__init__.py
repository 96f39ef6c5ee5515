"""The Hugging Face hub: models and datasets at pinned revisions, and what is wrong with them."""
