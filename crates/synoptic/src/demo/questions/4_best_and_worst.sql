WITH lot AS (
  SELECT t.trade_id, t.account_id, t.symbol, t.trade_day, t.quantity, t.price,
         coalesce(CAST(exp(sum(ln(s.ratio))) AS DECIMAL(9, 4)), 1) AS split_factor
  FROM portfolio.trades t
  LEFT JOIN portfolio.splits s
    ON s.symbol = t.symbol AND s.effective_day > t.trade_day
   AND s.effective_day <= DATE '2013-03-01'
  GROUP BY t.trade_id, t.account_id, t.symbol, t.trade_day, t.quantity, t.price
), result AS (
  SELECT l.*,
         100 * (l.split_factor * p.close / l.price - 1) AS percent,
         100 * (p.close / l.price - 1) AS naive
  FROM lot l
  JOIN market.prices p ON p.symbol = l.symbol AND p.trading_day = DATE '2013-03-01'
), ranked AS (
  SELECT *, row_number() OVER (ORDER BY percent DESC) AS best,
            row_number() OVER (ORDER BY percent) AS worst
  FROM result
)
SELECT account_id AS account, symbol, trade_day AS bought, quantity, price,
       CAST(quantity * split_factor AS DECIMAL(18, 0)) AS shares_now,
       CAST(percent AS DECIMAL(9, 2)) AS percent,
       CAST(naive AS DECIMAL(9, 2)) AS without_splits
FROM ranked
WHERE best <= 3 OR worst <= 5
ORDER BY percent DESC
