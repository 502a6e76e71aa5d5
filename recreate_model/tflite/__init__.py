"""Read, check and run `.tflite` files."""
