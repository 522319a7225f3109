"""From a name to weights and back, and the kernels that training and answering share."""
