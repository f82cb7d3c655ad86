"""The page at `/`: every market's last Signal, how good it has been, and how healthy its training was."""
