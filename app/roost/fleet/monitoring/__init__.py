"""Prometheus and Grafana for the fleet: what is scraped, when an alert fires, what dashboards show."""
