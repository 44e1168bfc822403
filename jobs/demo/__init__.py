"""The demo: three clients with invented claims, and what must come out of them."""
