"""What people see of runs, clients and workers."""
