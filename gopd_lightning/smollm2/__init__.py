"""SmolLM2-135M-Instruct as an experiment: its weights without a model hub, and prompts that it can learn from."""
