"""A language model as a researcher: one conversation per idea, with its prompt, memory and tools."""
