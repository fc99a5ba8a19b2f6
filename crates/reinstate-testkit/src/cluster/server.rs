//! One run of a server, held by a watchdog.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::ClusterError;

/// How long a server may take until it answers, recovery after a crash included.
const START_SECONDS_MAX: u64 = 120;

/// How long to wait before looking again.
const PAUSE: Duration = Duration::from_millis(20);

/// Runs the server and waits for one word: the signal that ends it. The end of its input means
/// that the test process is gone; then the files go too. KILL takes the server's children along,
/// found while the server cannot make new ones.
const WATCHDOG: &str = r#"
directory=$1 log=$2
shift 2
"$@" </dev/null >>"$log" 2>&1 &
server=$!
echo "$server"
if read -r signal; then orphaned=; else signal=QUIT orphaned=1; fi
if [ "$signal" = KILL ]; then
    kill -s STOP "$server" 2>/dev/null
    children=$(cat "/proc/$server/task/$server/children" 2>/dev/null)
    kill -s KILL "$server" $children 2>/dev/null
else
    kill -s "$signal" "$server" 2>/dev/null
fi
wait "$server"
if [ -n "$orphaned" ]; then rm -rf -- "$directory"; fi
"#;

/// A server that runs.
#[derive(Debug)]
pub(super) struct Server {
    watchdog: Child,
    orders: ChildStdin,
}

impl Server {
    /// Starts the server and waits until it answers.
    pub(super) fn start(
        server: &Command,
        directory: &Path,
        data: &Path,
        log: &Path,
    ) -> Result<Self, ClusterError> {
        let failed = |error: std::io::Error| ClusterError::new("start the server").because(&error);
        let deadline = Instant::now() + Duration::from_secs(START_SECONDS_MAX);
        loop {
            let log_start = fs::metadata(log).map_or(0, |log| log.len());
            let (run, process) = Self::spawn(server, directory, log).map_err(failed)?;
            let Err(complaint) = await_ready(process, data, log, log_start, deadline) else {
                return Ok(run);
            };
            run.end("KILL")?;
            // After a crash the last processes of the run before may take a moment to go.
            let retry = complaint.contains("is still in use") && Instant::now() < deadline;
            if !retry {
                return Err(ClusterError::new(format!("start the server: {complaint}")));
            }
            thread::sleep(PAUSE);
        }
    }

    /// Ends the server with this signal, and waits until it is gone.
    pub(super) fn end(mut self, signal: &str) -> Result<(), ClusterError> {
        let failed = |error: std::io::Error| ClusterError::new("stop the server").because(&error);
        writeln!(self.orders, "{signal}").map_err(failed)?;
        self.watchdog.wait().map_err(failed).map(drop)
    }

    fn spawn(server: &Command, directory: &Path, log: &Path) -> std::io::Result<(Self, u32)> {
        let mut watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(directory)
            .arg(log)
            .arg(server.get_program())
            .args(server.get_args())
            .current_dir(directory)
            // Out of reach of the interrupt key: the watchdog outlives the tests to clean up.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let (Some(orders), Some(answers)) = (watchdog.stdin.take(), watchdog.stdout.take()) else {
            unreachable!("BUG: both were asked to be pipes");
        };
        let mut line = String::new();
        BufReader::new(answers).read_line(&mut line)?;
        let process = line.trim().parse().map_err(std::io::Error::other)?;
        Ok((Self { watchdog, orders }, process))
    }
}

/// Waits until the server's own status file says that it accepts connections.
fn await_ready(
    process: u32,
    data: &Path,
    log: &Path,
    log_start: u64,
    deadline: Instant,
) -> Result<(), String> {
    let process = process.to_string();
    loop {
        let status = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
        let mut lines = status.lines();
        let is_ours = lines.next() == Some(&process);
        if is_ours
            && lines
                .nth(6)
                .is_some_and(|state| ["ready", "standby"].contains(&state.trim()))
        {
            return Ok(());
        }
        let said = said_since(log, log_start);
        // What a server says only when it gives up starting.
        let is_over = !is_ours && said.contains("FATAL:") || said.contains("is shut down");
        if is_over || Instant::now() >= deadline {
            return Err(format!("it said: {}", said.trim_end()));
        }
        thread::sleep(PAUSE);
    }
}

fn said_since(log: &Path, start: u64) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let start = usize::try_from(start).unwrap_or(usize::MAX);
    String::from_utf8_lossy(bytes.get(start..).unwrap_or_default()).into_owned()
}
