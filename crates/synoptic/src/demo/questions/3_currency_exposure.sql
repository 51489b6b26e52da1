WITH fixing AS (
  SELECT currency, rate
  FROM fx.rates
  WHERE fixing_day <= DATE '2012-12-31'
  QUALIFY row_number() OVER (PARTITION BY currency ORDER BY fixing_day DESC) = 1
  UNION ALL
  SELECT 'EUR', 1
), holding AS (
  SELECT currency, balance AS cash, 0 AS shares
  FROM portfolio.cash
  UNION ALL
  SELECT i.currency, 0, h.shares * p.close
  FROM portfolio.positions h
  JOIN portfolio.instruments i ON i.symbol = h.symbol
  JOIN market.prices p ON p.symbol = h.symbol AND p.trading_day = DATE '2012-12-31'
), exposure AS (
  SELECT h.currency,
         sum(h.cash) AS cash, sum(h.shares) AS shares, sum((h.cash + h.shares) / f.rate) AS eur
  FROM holding h
  JOIN fixing f ON f.currency = h.currency
  GROUP BY h.currency
)
SELECT currency,
       CAST(cash AS DECIMAL(18, 2)) AS cash,
       CAST(shares AS DECIMAL(18, 2)) AS shares,
       CAST(eur AS DECIMAL(18, 2)) AS total_eur,
       CAST(100 * eur / sum(eur) OVER () AS DECIMAL(5, 2)) AS percent
FROM exposure
ORDER BY eur DESC
