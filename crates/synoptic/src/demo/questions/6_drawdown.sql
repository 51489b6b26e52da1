WITH fixing AS (
  SELECT rate, fixing_day,
         lead(fixing_day, 1, DATE '9999-12-31') OVER (ORDER BY fixing_day) AS next_fixing
  FROM fx.rates
  WHERE currency = 'USD'
), daily AS (
  SELECT p.trading_day, sum(h.shares * p.close) AS usd
  FROM portfolio.positions h
  JOIN market.prices p ON p.symbol = h.symbol
  WHERE h.account_id = 102 AND p.trading_day >= DATE '2005-02-28'
  GROUP BY p.trading_day
), value AS (
  SELECT d.trading_day, d.usd / f.rate AS eur,
         max(d.usd / f.rate) OVER (ORDER BY d.trading_day) AS peak
  FROM daily d
  JOIN fixing f ON d.trading_day >= f.fixing_day AND d.trading_day < f.next_fixing
), marked AS (
  SELECT *, CASE WHEN eur = peak THEN trading_day END AS high_day
  FROM value
)
SELECT max(high_day) OVER (ORDER BY trading_day) AS peak_day,
       CAST(peak AS DECIMAL(18, 2)) AS peak_eur,
       trading_day AS trough_day,
       CAST(eur AS DECIMAL(18, 2)) AS trough_eur,
       CAST(100 * (eur / peak - 1) AS DECIMAL(5, 2)) AS percent,
       min(high_day) OVER (
         ORDER BY trading_day ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING
       ) AS recovered
FROM marked
ORDER BY eur / peak
LIMIT 1
