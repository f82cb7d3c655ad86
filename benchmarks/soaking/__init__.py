"""A service that is asked everything at once for a long time, while its bars come and its champions change."""
