"""The service: Triton behind it, BentoML before it, and what starts and watches both."""
