"""Tests of the deployment files: what runs where, made by the tools that read them."""
