"""How things are kept: the only SQL. Other packages call through the module: `store.bars.add(...)`."""
