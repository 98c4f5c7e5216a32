"""What the service was doing in the last half hour, in memory, for the page and for who has no Prometheus."""
