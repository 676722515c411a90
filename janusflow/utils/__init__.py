"""Files, limits, devices: what every room may use and what uses none of them."""
