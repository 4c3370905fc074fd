"""Where and how tensors are computed: number format and memory layout, processes, transfers."""
