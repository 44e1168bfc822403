"""A simulation of deliveries: many clients' files over many nights, with and without planted faults."""
