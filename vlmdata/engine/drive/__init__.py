"""The driver: it hands out partitions, makes global decisions and publishes the result."""
