"""What an ablation found, to be read: one page, its figures, a table for papers."""
