"""Checks that can be run by themselves; those of one partition are made by the asset that makes the partition."""
