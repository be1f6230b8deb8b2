"""HTTP API and web page. Imports engines; nothing but ``agsr serve`` imports this package."""
