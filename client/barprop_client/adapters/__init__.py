"""Signals where traders run strategies. Each module needs the package that it is named after, and nothing else imports it."""
