"""Runs tasks in parallel processes, here or on a Dask cluster."""
