"""What the stages that train have in common: states that are kept and continued, and the loop over epochs."""
