"""Optional speedups of the forward pass: oneDNN, float8, compiled norms; and the device's measured peak."""
