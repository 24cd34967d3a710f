"""The control plane: evidence comes in, decisions and desired state come out."""
