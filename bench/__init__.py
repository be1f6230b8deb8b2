"""Measuring: data sets, quality by the field's protocol, and the machine they are measured on."""
