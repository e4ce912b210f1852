"""From data to a trained model: the recipe, the loop, and what a run can be resumed from."""
