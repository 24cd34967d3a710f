"""Whether replicas obey: what each of them does, how many do, and what their answers prove."""
