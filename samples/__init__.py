"""Small real bars that ship; see README.md beside this file for their origin."""
