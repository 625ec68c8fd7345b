"""The verbs for what was trained."""
