"""Tests; a package so that shared fixtures import the same way from every folder."""
