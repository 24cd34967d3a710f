"""Pure facts about topics: partitions, retention, rights, where a key belongs."""
