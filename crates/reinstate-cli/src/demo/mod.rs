//! `demo`.
use crate::arguments::{Demo, Global};
use crate::console::Console;
use crate::exit::Exit;
use crate::signals::Interruption;
/// `demo`.
pub fn run(_: &Demo, _: &Global, _: &Console, _: &Interruption) -> anyhow::Result<Exit> {
    Ok(Exit::Done)
}
