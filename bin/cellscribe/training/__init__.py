"""Training of models: torch and scvi-tools are needed here, and only here."""
