"""Reaching the web: client, address guard, robots, rate limits, opt-outs."""
