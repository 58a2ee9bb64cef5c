"""Networks that read series [channels, length]: recurrent ones, and convolutions over time."""
