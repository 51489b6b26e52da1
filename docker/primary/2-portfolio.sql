-- A small portfolio to join with the prices in the S3 store.
CREATE TABLE accounts (
    account_id integer PRIMARY KEY,
    name text NOT NULL,
    currency text NOT NULL
);
CREATE TABLE positions (
    account_id integer NOT NULL REFERENCES accounts,
    symbol text NOT NULL,
    shares numeric(18, 4) NOT NULL,
    PRIMARY KEY (account_id, symbol)
);
INSERT INTO accounts VALUES (1, 'Growth', 'USD'), (2, 'Pension', 'EUR');
INSERT INTO positions VALUES (1, 'AAPL', 120), (1, 'MSFT', 80.5), (2, 'AAPL', 10), (2, 'IBM', 300);
ANALYZE;
