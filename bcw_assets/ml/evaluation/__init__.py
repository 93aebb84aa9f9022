"""How good the model is, and how far each number can be trusted."""
