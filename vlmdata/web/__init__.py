"""Access to the web: client, address guard, robots.txt, rate limiter, opt-outs."""
