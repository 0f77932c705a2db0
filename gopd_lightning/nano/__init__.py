"""The small real experiment that ships: two verifiable tasks, a corpus with wrong habits, a tokenizer."""
