"""From a question about architectures to an answer with its uncertainty: variants, fair runs, statistics, a report."""
