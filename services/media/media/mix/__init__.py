"""What one party hears of others: the mix, joins, bridges, listeners."""
