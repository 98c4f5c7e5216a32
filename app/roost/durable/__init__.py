"""Work that survives its process: DBOS, the stores beside it, migrations. It does not know what is stored."""
