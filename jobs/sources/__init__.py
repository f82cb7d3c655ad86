"""Where bars come from. Add a source by adding a module here."""
