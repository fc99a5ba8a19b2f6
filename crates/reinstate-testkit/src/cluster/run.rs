//! Running a program to its end.

use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;

use super::ClusterError;

/// Runs a command to its end, with these bytes as its input.
pub(super) fn finish(
    mut command: Command,
    name: &str,
    input: &[u8],
) -> Result<String, ClusterError> {
    let failed = |error: std::io::Error| ClusterError::new(format!("run {name}")).because(&error);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let stdin = child.stdin.take();
    let output = thread::scope(|scope| {
        scope.spawn(move || {
            // A program that fails early stops reading; its exit status tells, not this pipe.
            stdin.map(|mut stdin| stdin.write_all(input))
        });
        child.wait_with_output()
    })
    .map_err(failed)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(ClusterError::new(format!(
        "run {name}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim_end(),
    )))
}
