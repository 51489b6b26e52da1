WITH fixing AS (
  SELECT fixing_day, currency, rate
  FROM fx.rates
  WHERE fixing_day <= DATE '2012-12-26'
  QUALIFY row_number() OVER (PARTITION BY currency ORDER BY fixing_day DESC) = 1
)
SELECT a.account_id AS account, o.name AS owner, a.name AS mandate, f.fixing_day,
       CAST(sum(h.shares * p.close) AS DECIMAL(18, 2)) AS value_usd,
       CAST(sum(h.shares * p.close / f.rate) AS DECIMAL(18, 2)) AS value_eur
FROM portfolio.accounts a
JOIN portfolio.owners o ON o.owner_id = a.owner_id
JOIN portfolio.positions h ON h.account_id = a.account_id
JOIN portfolio.instruments i ON i.symbol = h.symbol
JOIN market.prices p ON p.symbol = h.symbol AND p.trading_day = DATE '2012-12-26'
JOIN fixing f ON f.currency = i.currency
GROUP BY a.account_id, o.name, a.name, f.fixing_day
ORDER BY value_eur DESC
