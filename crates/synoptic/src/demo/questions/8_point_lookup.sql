SELECT t.trade_id AS trade, o.name AS owner, t.quantity, t.price AS paid, p.low, p.high
FROM portfolio.trades t
JOIN portfolio.accounts a ON a.account_id = t.account_id
JOIN portfolio.owners o ON o.owner_id = a.owner_id
JOIN market.prices p ON p.symbol = t.symbol AND p.trading_day = t.trade_day
WHERE t.symbol = 'AAPL' AND t.trade_day = DATE '2005-02-25'
