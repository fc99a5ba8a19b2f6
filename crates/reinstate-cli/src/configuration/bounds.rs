//! How long a PostgreSQL store may keep a run waiting, and a run the store.

use std::time::Duration;

use reinstate_postgres::ConnectionSettings;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What `[store]` may say about it. None of it can be set to nothing: what waits for ever holds what others
/// wait for.
#[derive(Debug, Default)]
pub(super) struct BoundTexts {
    pub(super) connect_timeout: Option<String>,
    pub(super) lock_timeout: Option<String>,
    pub(super) statement_timeout: Option<String>,
    pub(super) lease: Option<String>,
}

/// The same, checked. What is not said is as [`ConnectionSettings::new`] has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// How long a connection may take.
    pub connect_timeout: Option<Duration>,
    /// How long a statement waits for a lock that somebody else holds.
    pub lock_timeout: Option<Duration>,
    /// How long one statement of a merge may take.
    pub statement_timeout: Option<Duration>,
    /// How long a merge may say nothing to the server while it holds a tenant.
    pub lease: Option<Duration>,
}

impl BoundTexts {
    /// The first of its keys that is there.
    pub(super) fn first(&self) -> Option<&'static str> {
        self.all()
            .into_iter()
            .find_map(|(key, text)| text.is_some().then_some(key))
    }

    /// Checks each. The error names the key.
    pub(super) fn check(&self) -> Result<Bounds, String> {
        let [connect, lock, statement, lease] = self.all();
        Ok(Bounds {
            connect_timeout: within(connect, 100 * MILLISECOND, 300 * SECOND)?,
            lock_timeout: within(lock, 10 * MILLISECOND, 600 * SECOND)?,
            statement_timeout: within(statement, 100 * MILLISECOND, DAY)?,
            lease: within(lease, 10 * SECOND, DAY)?,
        })
    }

    fn all(&self) -> [(&'static str, Option<&str>); 4] {
        [
            ("connect_timeout", self.connect_timeout.as_deref()),
            ("lock_timeout", self.lock_timeout.as_deref()),
            ("statement_timeout", self.statement_timeout.as_deref()),
            ("lease", self.lease.as_deref()),
        ]
    }
}

impl Bounds {
    /// Puts what is said into the settings.
    pub fn set(&self, settings: &mut ConnectionSettings) {
        let pairs = [
            (self.connect_timeout, &mut settings.connect_timeout),
            (self.lock_timeout, &mut settings.lock_timeout),
            (self.statement_timeout, &mut settings.statement_timeout),
            (self.lease, &mut settings.lease),
        ];
        for (said, setting) in pairs {
            *setting = said.unwrap_or(*setting);
        }
    }
}

fn within(
    (key, text): (&str, Option<&str>),
    min: Duration,
    max: Duration,
) -> Result<Option<Duration>, String> {
    let Some(text) = text else {
        return Ok(None);
    };
    match length(text) {
        Some(length) if (min..=max).contains(&length) => Ok(Some(length)),
        _ => Err(format!(
            "store.{key} = {text:?}: expected a length of time from {} to {}, as in \"5s\"",
            shown(min),
            shown(max)
        )),
    }
}

fn shown(length: Duration) -> String {
    match length.as_secs() {
        0 => format!("{}ms", length.as_millis()),
        seconds if seconds % 3600 == 0 => format!("{}h", seconds / 3600),
        seconds if seconds % 60 == 0 => format!("{}m", seconds / 60),
        seconds => format!("{seconds}s"),
    }
}

/// A length of time, as in `250ms`, `5s` or `7 days`, of 24 hours each; none if the text is none, or it is
/// less than nothing.
pub(super) fn length(text: &str) -> Option<Duration> {
    let span: jiff::Span = text.parse().ok()?;
    let epoch = jiff::Timestamp::UNIX_EPOCH.to_zoned(jiff::tz::TimeZone::UTC);
    Duration::try_from(span.to_duration(&epoch).ok()?).ok()
}
