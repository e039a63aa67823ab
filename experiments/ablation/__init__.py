"""What ablations share: results of variants and seeds as arrays, their tables, and their charts."""
