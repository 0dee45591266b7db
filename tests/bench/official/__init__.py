"""The official implementations that compare_torch.py knows, a module a family: see its text."""
