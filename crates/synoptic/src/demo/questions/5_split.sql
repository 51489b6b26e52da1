SELECT p.trading_day, p.close,
       CAST(100 * (p.close / lag(p.close) OVER w - 1) AS DECIMAL(9, 2)) AS naive_percent,
       s.ratio AS split,
       CAST(100 * (p.close * coalesce(s.ratio, 1) / lag(p.close) OVER w - 1) AS DECIMAL(9, 2))
         AS percent,
       CAST(p.adjusted_close AS DECIMAL(18, 4)) AS adjusted_close
FROM market.prices p
LEFT JOIN portfolio.splits s ON s.symbol = p.symbol AND s.effective_day = p.trading_day
WHERE p.symbol = 'AAPL' AND p.trading_day BETWEEN DATE '2005-02-23' AND DATE '2005-03-02'
WINDOW w AS (ORDER BY p.trading_day)
ORDER BY p.trading_day
