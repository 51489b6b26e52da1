WITH fixing AS (
  SELECT rate, fixing_day,
         lead(fixing_day, 1, DATE '9999-12-31') OVER (ORDER BY fixing_day) AS next_fixing
  FROM fx.rates
  WHERE currency = 'USD'
), daily AS (
  SELECT p.trading_day, f.rate, sum(h.shares * p.close) AS usd
  FROM market.prices p
  JOIN portfolio.positions h ON h.symbol = p.symbol
  JOIN fixing f ON p.trading_day >= f.fixing_day AND p.trading_day < f.next_fixing
  WHERE p.trading_day BETWEEN DATE '2013-01-18' AND DATE '2013-01-25'
  GROUP BY p.trading_day, f.rate
), change AS (
  SELECT trading_day, usd, rate,
         lag(usd) OVER (ORDER BY trading_day) AS usd_before,
         lag(rate) OVER (ORDER BY trading_day) AS rate_before
  FROM daily
)
SELECT trading_day,
       CAST(usd / rate AS DECIMAL(18, 2)) AS value_eur,
       CAST((usd - usd_before) / rate_before AS DECIMAL(18, 2)) AS from_prices,
       CAST(usd / rate - usd / rate_before AS DECIMAL(18, 2)) AS from_dollar,
       CAST(usd / rate - usd_before / rate_before AS DECIMAL(18, 2)) AS pnl_eur
FROM change
WHERE usd_before IS NOT NULL
ORDER BY trading_day
