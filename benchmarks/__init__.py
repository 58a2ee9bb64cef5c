"""Times the engine beside the peers that install, on the same network, data and mathematics."""
