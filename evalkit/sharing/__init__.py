"""Results for others: archives that can be checked and merged, what changed between two, other projects' formats."""
