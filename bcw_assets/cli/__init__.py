"""What `bcw` does, and what it says to people and to scripts."""
