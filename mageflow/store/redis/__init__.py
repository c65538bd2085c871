"""How Redis is reached: connections per event loop, Lua scripts as typed values, one call as one round trip."""
