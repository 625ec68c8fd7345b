"""Points of one object an image, such as the joints of a person."""
