"""What a process meets: signals, threads that fail, a machine without memory."""
