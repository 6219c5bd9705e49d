"""From policies to rows (compiler), and from policies to an answer (evaluator); pure, and strangers to each other."""
