"""Ways of changing weights: adapters beside frozen layers, and how they are attached, merged, saved and loaded."""
