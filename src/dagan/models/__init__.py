"""The networks: they take tensors and give tensors. They know no files and print nothing."""
