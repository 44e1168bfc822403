"""What the company has written: etl.toml and clients/*.toml, read, checked and resolved for one client."""
