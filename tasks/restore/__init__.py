"""The steps of a restore and of its way back; the two kinds, database and directory, stand in pairs."""
