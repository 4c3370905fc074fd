"""The factors that images of the embedded data set are drawn with."""

FACTORS = {"time": "time of day", "weather": "weather", "form": "form of the building", "spire": "form of the roof"}
"""What the embedded data set draws at random, of what can be seen: the column of its table, and in words."""
