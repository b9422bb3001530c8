"""What the assets connect to, and the settings that say so."""
