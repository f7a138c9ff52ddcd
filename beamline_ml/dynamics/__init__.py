"""What explains the correlations: systems, scattering forward models, the graph vector field, fit and forecast."""
