"""What a comparison says in words: numbers, schedules, how sure a difference is."""
