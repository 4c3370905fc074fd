"""Networks, and the number format and memory layout that they compute in."""
