"""Steering that lies in the weights: edits as changes of linear maps, and what finds them."""
