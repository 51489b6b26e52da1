//! The questions of the tour, in the order they are asked.

/// One question a portfolio manager asks.
#[derive(Debug, Clone, Copy)]
pub struct Question {
    /// The question, in a sentence.
    pub title: &'static str,
    /// What makes it hard, and how the statement deals with it.
    pub note: &'static str,
    /// The statement.
    pub sql: &'static str,
    /// What to see in the answer.
    pub finding: &'static str,
}

/// The tour.
pub const QUESTIONS: [Question; 8] = [
    Question {
        title: "What was every account worth in euro on 26 December 2012?",
        note: "Accounts are in SQLite, prices in Parquet, exchange rates in CSV. New York traded on \
               26 December, but the European Central Bank fixed no rate: the last fixing before it \
               counts.",
        sql: include_str!("questions/1_market_value.sql"),
        finding: "All six accounts are there, at the fixing of 24 December. Asking for the rate of \
                  the same day would have returned no row at all, and no error.",
    },
    Question {
        title: "What did we earn, day by day, in the week Apple lost twelve percent?",
        note: "A fixing holds until the next one. The change in euro is split into what share \
               prices did and what the dollar did.",
        sql: include_str!("questions/2_daily_pnl.sql"),
        finding: "On 24 January 2013, the day after Apple's results, the bank lost 107,248.05 euro. \
                  Monday is missing because it was a holiday in New York.",
    },
    Question {
        title: "How much do we have in each currency at the end of 2012?",
        note: "Shares count in the currency they trade in, cash in its own. The ECB publishes no \
               rate for the euro itself, so it is added as 1.",
        sql: include_str!("questions/3_currency_exposure.sql"),
        finding: "85.50 percent hangs on the dollar, though only one account is kept in dollars.",
    },
    Question {
        title: "Which purchases did best and worst until 1 March 2013?",
        note: "Prices are as they were traded, so a purchase before a split must be multiplied by \
               every split since (exp of sum of ln is a product). Dividends are left out.",
        sql: include_str!("questions/4_best_and_worst.sql"),
        finding: "Without the splits, 600 Microsoft shares bought on the last day before one seem \
                  to have lost 42 percent. They are 1,200 shares now, and gained 15.73 percent.",
    },
    Question {
        title: "Did Apple lose half its value on 28 February 2005?",
        note: "It split two for one. The split is in the portfolio database, the prices are in \
               Parquet.",
        sql: include_str!("questions/5_split.sql"),
        finding: "It gained 0.82 percent. The adjusted close shows no jump either, but it is no \
                  price of that day: 5.7182 knows of a split in 2014. Valuing the past with it \
                  is look-ahead.",
    },
    Question {
        title: "How far did the Endowment fall from its peak, and when was it back?",
        note: "Account 102 has not traded since February 2005. Its value in euro on each of 2,016 \
               trading days, and the highest value so far.",
        sql: include_str!("questions/6_drawdown.sql"),
        finding: "It lost 53.54 percent within a year. The peak was on a 26 December: joining \
                  prices to the rate of the same day would have missed it.",
    },
    Question {
        title: "On which days did New York trade without an ECB fixing?",
        note: "The days an equality join loses in silence.",
        sql: include_str!("questions/7_no_fixing.sql"),
        finding: "31 of 3,270 trading days, the same holidays every year.",
    },
    Question {
        title: "Who bought Apple on the last day before the split, and was the price fair?",
        note: "Two conditions, written once. Look at what was sent: both sources get them, and \
               almost nothing comes back.",
        sql: include_str!("questions/8_point_lookup.sql"),
        finding: "The Dubois Foundation paid 88.99, between the day's low and high.",
    },
];
