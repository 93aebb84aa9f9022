-- The model of this release: probability_malignant of each row of a table named measurements, beside all that the
-- row has. Where the name is another, put WITH measurements AS (SELECT ... FROM ...) before it, or make a view.
-- A row without one of the measurements gets NULL. Rules are not checked: bcw predict refuses rows that this scores.
SELECT -- own columns come first: where the table has such names too, some engines take the first, others refuse both
  CASE -- EXP of more than 700 overflows, and of less than -700 is an error in PostgreSQL
    WHEN log_odds < -700e0 THEN 0e0
    WHEN log_odds <= 700e0 THEN 1e0 / (1e0 + EXP(-log_odds))
    ELSE 1e0 + 0e0 * log_odds -- 1, but NULL stays NULL and NaN, which is above all numbers in some engines, NaN
  END AS probability_malignant,
  scored.*
FROM (
  SELECT
    {log_odds} AS log_odds,
    measurements.*
  FROM measurements
) scored
