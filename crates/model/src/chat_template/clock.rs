//! `strftime_now`, in UTC: templates write the date into the system prompt.

use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::{Error, ErrorKind};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// The function for a fixed moment.
pub(super) fn at(now: SystemTime) -> impl Fn(String) -> Result<String, Error> + Send + Sync + 'static {
    move |format| {
        let moment = Moment::of(now)?;
        strftime(&moment, &format)
    }
}

struct Moment {
    year: i64,
    month: usize,     // 1..=12
    day: i64,         // 1..=31
    weekday: usize,   // 0 = Sunday
    day_of_year: i64, // 1..=366
    second_of_day: i64,
}

impl Moment {
    fn of(time: SystemTime) -> Result<Self, Error> {
        let since = time.duration_since(UNIX_EPOCH);
        let seconds = since.ok().and_then(|since| i64::try_from(since.as_secs()).ok());
        let seconds =
            seconds.ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "the clock is before 1970"))?;
        let mut days = seconds / 86_400;
        let weekday = (days + 4) % 7; // 1970-01-01 was a Thursday
        let mut year = 1970 + 400 * (days / 146_097);
        days %= 146_097;
        while days >= 365 + i64::from(leap(year)) {
            days -= 365 + i64::from(leap(year));
            year += 1;
        }
        let (mut month, mut day) = (0, days);
        while day >= month_length(year, month) {
            day -= month_length(year, month);
            month += 1;
        }
        Ok(Self {
            year,
            month: month + 1,
            day: day + 1,
            weekday: weekday as usize,
            day_of_year: days + 1,
            second_of_day: seconds % 86_400,
        })
    }
}

fn leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// Days of a month counted from 0.
fn month_length(year: i64, month: usize) -> i64 {
    match month {
        1 => 28 + i64::from(leap(year)),
        3 | 5 | 8 | 10 => 30,
        _ => 31,
    }
}

fn strftime(moment: &Moment, format: &str) -> Result<String, Error> {
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut directive = chars.next();
        // glibc's `%-d`: without padding.
        let bare = directive == Some('-');
        if bare {
            directive = chars.next();
        }
        out.push_str(&field(moment, directive, bare)?);
    }
    Ok(out)
}

fn field(moment: &Moment, directive: Option<char>, bare: bool) -> Result<String, Error> {
    let hour = moment.second_of_day / 3600;
    let number = |value: i64, width: usize| {
        if bare { value.to_string() } else { format!("{value:0width$}") }
    };
    let (month, day) = (MONTHS[(moment.month - 1) % 12], DAYS[moment.weekday % 7]);
    Ok(match directive {
        Some('Y') => moment.year.to_string(),
        Some('y') => number(moment.year % 100, 2),
        Some('m') => number(moment.month as i64, 2),
        Some('d') => number(moment.day, 2),
        Some('j') => number(moment.day_of_year, 3),
        Some('H') => number(hour, 2),
        Some('I') => number((hour + 11) % 12 + 1, 2),
        Some('M') => number(moment.second_of_day / 60 % 60, 2),
        Some('S') => number(moment.second_of_day % 60, 2),
        Some('p') => if hour < 12 { "AM" } else { "PM" }.to_string(),
        Some('B') => month.to_string(),
        Some('b' | 'h') => month[..3].to_string(),
        Some('A') => day.to_string(),
        Some('a') => day[..3].to_string(),
        Some('e') if bare => moment.day.to_string(),
        Some('e') => format!("{:2}", moment.day),
        Some('F') => format!("{}-{:02}-{:02}", moment.year, moment.month, moment.day),
        Some('T') => {
            format!("{hour:02}:{:02}:{:02}", moment.second_of_day / 60 % 60, moment.second_of_day % 60)
        }
        Some('%') => "%".to_string(),
        other => {
            let shown = other.map_or("at the end".to_string(), |c| format!("%{c}"));
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                format!("strftime_now: {shown} is not supported"),
            ));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn show(seconds: u64, format: &str) -> String {
        at(UNIX_EPOCH + Duration::from_secs(seconds))(format.to_string()).unwrap()
    }

    /// Expected texts are what `date -u -d @SECONDS +FORMAT` prints.
    #[test]
    fn dates_as_the_date_command_prints_them() {
        assert_eq!(show(0, "%a %d %b %Y %H:%M:%S %j"), "Thu 01 Jan 1970 00:00:00 001");
        assert_eq!(show(951_782_400, "%A %-d %B %Y, day %j"), "Tuesday 29 February 2000, day 060");
        assert_eq!(show(1_735_689_599, "%F %T %I %p"), "2024-12-31 23:59:59 11 PM");
        assert_eq!(show(4_107_542_400, "%d %b %y (%e)"), "01 Mar 00 ( 1)");
    }

    #[test]
    fn an_unknown_directive_is_an_error() {
        assert!(at(UNIX_EPOCH)("%Q".to_string()).is_err());
        assert!(at(UNIX_EPOCH)("100%".to_string()).is_err());
    }
}
