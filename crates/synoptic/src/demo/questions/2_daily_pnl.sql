WITH fixing AS (
  SELECT rate, fixing_day,
         lead(fixing_day, 1, DATE '9999-12-31') OVER (ORDER BY fixing_day) AS next_fixing
  FROM fx.rates
  WHERE currency = 'USD'
), daily AS (
  SELECT p.trading_day, sum(h.shares * p.close) AS usd
  FROM market.prices p
  JOIN portfolio.positions h ON h.symbol = p.symbol
  WHERE p.trading_day BETWEEN DATE '2013-01-18' AND DATE '2013-01-25'
  GROUP BY p.trading_day
), change AS (
  SELECT d.trading_day, d.usd, f.rate,
         lag(d.usd) OVER w AS usd_before, lag(f.rate) OVER w AS rate_before
  FROM daily d
  JOIN fixing f ON d.trading_day >= f.fixing_day AND d.trading_day < f.next_fixing
  WINDOW w AS (ORDER BY d.trading_day)
)
SELECT trading_day,
       CAST(usd / rate AS DECIMAL(18, 2)) AS value_eur,
       CAST((usd - usd_before) / rate_before AS DECIMAL(18, 2)) AS from_prices,
       CAST(usd / rate - usd / rate_before AS DECIMAL(18, 2)) AS from_dollar,
       CAST(usd / rate - usd_before / rate_before AS DECIMAL(18, 2)) AS pnl_eur
FROM change
WHERE usd_before IS NOT NULL
ORDER BY trading_day
