"""What is answered over HTTP and on the command line."""
