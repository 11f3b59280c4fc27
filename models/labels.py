"""What the numbers of a label map mean: 0 is the background, 1 and up are classes, and one number is no label."""

IGNORE = 255
