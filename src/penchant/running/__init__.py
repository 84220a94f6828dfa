"""How a whole run is put together from the rooms below: rows prepared, model measured, trained, measured again, reported."""
