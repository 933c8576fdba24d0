"""Images and class names in; pictures, arrays and JSON out."""
