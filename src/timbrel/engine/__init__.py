"""The composition of pitch, encoders, index, map, generator and codec that serving puts on the network."""
