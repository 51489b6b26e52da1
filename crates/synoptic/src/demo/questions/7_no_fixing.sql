SELECT CASE
         WHEN date_part('month', s.trading_day) = 12 AND date_part('day', s.trading_day) = 26
           THEN '26 December'
         WHEN date_part('month', s.trading_day) = 5 THEN '1 May'
         WHEN date_part('month', s.trading_day) = 12 THEN '31 December'
         ELSE 'Easter Monday'
       END AS holiday,
       count(*) AS days, min(s.trading_day) AS first, max(s.trading_day) AS last
FROM (SELECT DISTINCT trading_day FROM market.prices) s
LEFT JOIN (SELECT DISTINCT fixing_day FROM fx.rates) f ON f.fixing_day = s.trading_day
WHERE f.fixing_day IS NULL
GROUP BY 1
ORDER BY days DESC, last DESC
