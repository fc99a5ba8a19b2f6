//! The small file that monitoring reads: Prometheus' text format, as its node exporter collects it.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use reinstate_core::Timestamp;

const LAST_SUCCESS: &str = "reinstate_drill_last_success_timestamp_seconds";

/// What is published of a drill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Published {
    /// When it began.
    pub(super) at: Timestamp,
    /// Whether everything was as it has to be.
    pub(super) is_good: bool,
    /// How long the slowest tenant took to come back.
    pub(super) recovery_time: Duration,
    /// How long ago the newest moment was that can be gone back to; none if it is not known.
    pub(super) recovery_point_age: Option<Duration>,
}

impl Published {
    /// A drill that came to nothing, as long as nothing else is known of it.
    pub(super) const fn nothing(at: Timestamp) -> Self {
        Self {
            at,
            is_good: false,
            recovery_time: Duration::ZERO,
            recovery_point_age: None,
        }
    }

    /// The file's text, given that of the drill before.
    fn text(&self, before: &str) -> String {
        let at = seconds(self.at);
        let last_success = match self.is_good {
            true => Some(at.clone()),
            // The last time that it went well is what an alarm is about.
            false => before
                .lines()
                .find_map(|line| line.strip_prefix(LAST_SUCCESS)?.strip_prefix(' '))
                .map(ToOwned::to_owned),
        };
        let mut text = String::new();
        let mut gauge = |name: &str, help: &str, value: Option<String>| {
            if let Some(value) = value {
                // Writing to a string cannot fail.
                let _ = writeln!(
                    text,
                    "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}"
                );
            }
        };
        gauge(
            "reinstate_drill_success",
            "Whether the last drill went as it has to.",
            Some(u8::from(self.is_good).to_string()),
        );
        gauge(
            "reinstate_drill_timestamp_seconds",
            "When the last drill began.",
            Some(at),
        );
        gauge(
            LAST_SUCCESS,
            "When the last drill began that went as it has to.",
            last_success,
        );
        let took = self
            .is_good
            .then(|| self.recovery_time.as_secs_f64().to_string());
        gauge(
            "reinstate_drill_recovery_time_seconds",
            "How long the slowest tenant took to come back.",
            took,
        );
        gauge(
            "reinstate_drill_recovery_point_age_seconds",
            "How long ago the newest moment was that can be gone back to.",
            self.recovery_point_age
                .map(|age| age.as_secs_f64().to_string()),
        );
        text
    }
}

/// Puts the file in place of the last one: whoever reads it reads the one or the other.
///
/// # Errors
/// If it cannot be written.
pub(super) fn publish(path: &Path, published: &Published) -> std::io::Result<()> {
    let before = match std::fs::read(path) {
        Ok(before) => String::from_utf8_lossy(&before).into_owned(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    let directory = match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    };
    let mut file = tempfile::Builder::new()
        .prefix(".reinstate-drill-")
        .tempfile_in(directory)?;
    file.write_all(published.text(&before).as_bytes())?;
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.as_file().set_permissions(readable)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

fn seconds(at: Timestamp) -> String {
    let (whole, micros) = (
        at.as_micros().div_euclid(1_000_000),
        at.as_micros().rem_euclid(1_000_000),
    );
    format!("{whole}.{micros:06}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drill_that_failed_keeps_the_time_of_the_last_that_did_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("drill.prom");
        let read = || std::fs::read_to_string(&path).unwrap();
        let at = Timestamp::from_micros(1_775_374_680_000_001);
        publish(&path, &Published::nothing(at)).unwrap();
        assert!(read().contains("reinstate_drill_success 0\n"));
        assert!(!read().contains(LAST_SUCCESS));
        let good = Published {
            at,
            is_good: true,
            recovery_time: Duration::from_millis(1_500),
            recovery_point_age: Some(Duration::from_secs(30)),
        };
        publish(&path, &good).unwrap();
        let success = format!("\n{LAST_SUCCESS} 1775374680.000001\n");
        assert!(read().contains(&success), "{}", read());
        assert!(read().contains("\nreinstate_drill_recovery_time_seconds 1.5\n"));
        assert!(read().contains("\nreinstate_drill_recovery_point_age_seconds 30\n"));
        let later = Timestamp::from_micros(at.as_micros() + 3_600_000_000);
        publish(&path, &Published::nothing(later)).unwrap();
        assert!(read().contains(&success), "{}", read());
        assert!(read().contains("\nreinstate_drill_timestamp_seconds 1775378280.000001\n"));
        assert!(!read().contains("recovery_time"));
        // Nothing else is left behind.
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
