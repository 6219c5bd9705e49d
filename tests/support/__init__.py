"""What several test modules need: the truth tables and the ways to judge them."""
