"""What a person does with a queue: check it, look at it, see to its dead letters. Main thread of each command."""
