"""What operators' commands share: following an act until replicas obey, trying one out, and proof by answers."""
