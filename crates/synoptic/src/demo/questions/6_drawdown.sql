WITH fixing AS (
  SELECT rate, fixing_day,
         lead(fixing_day, 1, DATE '9999-12-31') OVER (ORDER BY fixing_day) AS next_fixing
  FROM fx.rates
  WHERE currency = 'USD'
), daily AS (
  SELECT p.trading_day, sum(h.shares * p.close / f.rate) AS eur
  FROM portfolio.positions h
  JOIN market.prices p ON p.symbol = h.symbol
  JOIN fixing f ON p.trading_day >= f.fixing_day AND p.trading_day < f.next_fixing
  WHERE h.account_id = 102 AND p.trading_day >= DATE '2005-02-28'
  GROUP BY p.trading_day
), peaks AS (
  SELECT trading_day, eur, max(eur) OVER (ORDER BY trading_day) AS peak
  FROM daily
), trough AS (
  SELECT trading_day, eur, peak
  FROM peaks
  ORDER BY eur / peak
  LIMIT 1
)
SELECT max(d.trading_day) FILTER (WHERE d.trading_day < t.trading_day AND d.eur = t.peak)
         AS peak_day,
       CAST(t.peak AS DECIMAL(18, 2)) AS peak_eur,
       t.trading_day AS trough_day,
       CAST(t.eur AS DECIMAL(18, 2)) AS trough_eur,
       CAST(100 * (t.eur / t.peak - 1) AS DECIMAL(5, 2)) AS percent,
       min(d.trading_day) FILTER (WHERE d.trading_day > t.trading_day AND d.eur >= t.peak)
         AS recovered
FROM trough t
CROSS JOIN daily d
GROUP BY t.trading_day, t.eur, t.peak
