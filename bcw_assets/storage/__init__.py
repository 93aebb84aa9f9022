"""Where artifacts live and what they look like there."""
