"""What a fit takes, by size, steps, batch and terms: `python -m experiments.timing`."""
